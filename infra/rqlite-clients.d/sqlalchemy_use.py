"""SQLAlchemy's dialect for rqlite: the Core, the ORM, reflection, and a migration of Alembic's in batch mode.

No column is a DATE: pyrqlite 2.2 reads texts of columns that are not declared as texts as base64, which neither we nor
SQLite write there.
"""

import os

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Column, ForeignKey, String, create_engine, event, func, inspect, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

engine = create_engine(f"rqlite+pyrqlite://127.0.0.1:{os.environ['DATABASE_PORT']}/")


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "sa_users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(30))
    score: Mapped[float | None]
    addresses: Mapped[list["Address"]] = relationship(back_populates="user", cascade="all, delete-orphan")


class Address(Base):
    __tablename__ = "sa_addresses"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    user_id: Mapped[int] = mapped_column(ForeignKey("sa_users.id"))
    user: Mapped[User] = relationship(back_populates="addresses")


@event.listens_for(engine, "connect")
def connected(connection, _):
    """As SQLAlchemy's documentation has it for SQLite; here keys are on anyway."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


Base.metadata.create_all(engine)
with Session(engine) as session:
    ann = User(name="ann", score=1.5, addresses=[Address(email="a@x"), Address(email="a@y")])
    session.add_all([ann, User(name="bob")])
    session.commit()
    assert ann.id == 1 and [one.email for one in ann.addresses] == ["a@x", "a@y"]

with Session(engine) as session:
    found = session.scalars(select(User).join(User.addresses).where(Address.email == "a@y")).one()
    assert (found.name, found.score) == ("ann", 1.5)
    found.addresses.pop()
    found.name = "Ann"
    session.commit()
    assert session.scalar(select(func.count()).select_from(Address)) == 1
    session.delete(session.get(User, 2))
    session.commit()
    assert session.scalars(select(User.name)).all() == ["Ann"]

with engine.connect() as connection:
    try:
        connection.execute(text("INSERT INTO sa_addresses (email, user_id) VALUES ('z', 99)"))
        raise SystemExit("not refused")
    except DBAPIError as error:
        assert "FOREIGN KEY constraint failed" in str(error), error

# The dialect does not ask which version SQLite has, and SQLAlchemy's reflection compares it.
with engine.connect() as connection:
    version = connection.execute(text("SELECT sqlite_version()")).scalar()
engine.dialect.server_version_info = tuple(map(int, version.split(".")))
found = inspect(engine)
assert set(found.get_table_names()) >= {"sa_users", "sa_addresses"}
assert [key["referred_table"] for key in found.get_foreign_keys("sa_addresses")] == ["sa_users"]
assert [column["name"] for column in found.get_columns("sa_users")] == ["id", "name", "score"]

# A migration of several statements is several requests here: it works where no other table references the one that is
# rebuilt. One that must turn foreign keys off is told that it cannot, instead of losing rows.
with engine.connect() as connection:
    operations = Operations(MigrationContext.configure(connection))
    with operations.batch_alter_table("sa_addresses", recreate="always") as batch:
        batch.add_column(Column("kind", String(10), server_default="home"))
    assert connection.execute(text("SELECT email, kind FROM sa_addresses")).all() == [("a@x", "home")]
    try:
        connection.execute(text("PRAGMA foreign_keys=OFF"))
        raise SystemExit("not refused")
    except DBAPIError as error:
        assert "end of its request" in str(error), error
Base.metadata.drop_all(engine)
assert not inspect(engine).has_table("sa_users")
