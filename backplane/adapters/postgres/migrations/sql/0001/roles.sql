-- What each service connects as. They own nothing; `parley migrate` lets them log in with the passwords it is given.
DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['parley_command_api', 'parley_query_api', 'parley_worker', 'parley_projections', 'parley_relay']
  LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN NOBYPASSRLS NOSUPERUSER', name);
    END IF;
  END LOOP;
END $$;

CREATE SCHEMA control;
CREATE SCHEMA work;
CREATE SCHEMA read_models;
CREATE SCHEMA bus;
GRANT USAGE ON SCHEMA control TO parley_command_api, parley_query_api, parley_worker, parley_relay;
GRANT USAGE ON SCHEMA work TO parley_worker;
GRANT USAGE ON SCHEMA read_models TO parley_command_api, parley_query_api, parley_worker, parley_projections;
GRANT USAGE ON SCHEMA bus TO parley_command_api, parley_query_api, parley_worker, parley_projections, parley_relay;

-- The tenant of the transaction; an empty setting means nobody.
CREATE FUNCTION control.current_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
  RETURN nullif(current_setting('parley.tenant', true), '')::uuid;
