-- Run once, on an empty volume. The database `prefect` is there already.
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_users;
-- Prefect's search for words needs it; making it takes the rights of a superuser.
CREATE EXTENSION IF NOT EXISTS pg_trgm;
