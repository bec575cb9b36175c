-- Read by PostgreSQL's image when it makes the database: the dashboard's account, which reads what the aggregate writes.
\set password `cat /run/secrets/dashboard`
CREATE ROLE dashboard LOGIN PASSWORD :'password';
ALTER DEFAULT PRIVILEGES FOR ROLE exec_events IN SCHEMA public GRANT SELECT ON TABLES TO dashboard;
