"""Where the orders come from: a file in the project, beside the package."""

from pathlib import Path

import pandas as pd

ORDERS = Path(__file__).parents[1] / "data" / "orders.csv"


def read_orders() -> pd.DataFrame:
    return pd.read_csv(ORDERS, parse_dates=["day"])
