import unittest

from orders.store import orders


class TestStore(unittest.TestCase):
    def test_orders(self):
        self.assertEqual(sum(orders()), 42)
