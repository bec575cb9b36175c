"""Makes the modules of this folder importable for every test below it, and Kafka and PostgreSQL there for those that ask."""

pytest_plugins = ["kafka_fixtures", "postgres_fixtures"]
