"""The assets: the orders, and two tables computed from them."""

import dagster as dg
import pandas as pd

from quickstart.data import read_orders


@dg.asset(group_name="shop")
def orders(context: dg.AssetExecutionContext) -> pd.DataFrame:
    """Orders as they were placed, one row each."""
    table = read_orders()
    context.add_output_metadata({"rows": len(table), "total": float(table["amount"].sum())})
    return table


@dg.asset(group_name="shop")
def orders_per_customer(orders: pd.DataFrame) -> pd.DataFrame:
    """Orders per customer."""
    grouped = orders.groupby("customer", as_index=False)
    return grouped.agg(orders=("order_id", "count"), amount=("amount", "sum"))


@dg.asset(group_name="shop")
def revenue_per_day(orders: pd.DataFrame) -> pd.DataFrame:
    """Revenue per day."""
    return orders.groupby("day", as_index=False).agg(revenue=("amount", "sum"))


@dg.asset_check(asset=orders)
def no_negative_amounts(orders: pd.DataFrame) -> dg.AssetCheckResult:
    """No order has a negative amount."""
    negative = int((orders["amount"] < 0).sum())
    return dg.AssetCheckResult(passed=negative == 0, metadata={"negative": negative})
