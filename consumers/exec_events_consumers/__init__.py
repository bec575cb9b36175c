"""The readers: consumers of the topics, and Kafka as a source."""
