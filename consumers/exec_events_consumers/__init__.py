"""The readers: Kafka as a source of records, beside what the contract itself reads."""
