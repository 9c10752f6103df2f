"""Amounts of money."""

from decimal import Decimal


def amount(value, currency):
    return f"{Decimal(value):.2f} {currency}"
