"""Orders, in a database that lives as long as the process."""

import sqlalchemy

engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.pool.StaticPool)
table = sqlalchemy.Table("orders", sqlalchemy.MetaData(), sqlalchemy.Column("amount", sqlalchemy.Integer))

with engine.begin() as connection:
    table.create(connection)
    connection.execute(table.insert(), [{"amount": 12}, {"amount": 30}])


def orders():
    with engine.connect() as connection:
        return [row.amount for row in connection.execute(table.select())]
