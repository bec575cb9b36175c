"""A user's server in a container: /etc/jupyter/jupyter_server_config.py, which is root's."""

c = get_config()  # noqa: F821

c.ExecEvents.pseudonym_key_file = "/run/secrets/notebook-key"
c.ExecEvents.deliver_to = ["kafka://broker:19092"]
c.ExecEvents.sink_settings = {
    "kafka": {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "recorder",
        "sasl_plain_password_file": "/run/secrets/kafka-recorder",
        # docker/kafka_rights.py has made them; a recorder may not.
        "create_topics": False,
    }
}
