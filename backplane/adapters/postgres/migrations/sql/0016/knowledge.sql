CREATE TABLE control.collections (
  collection_id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  name text NOT NULL,
  embedder text NOT NULL,
  language text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (tenant_id, name)
);
-- `sealed` is the uploaded file under the document's own data key; `content` its name, as commands carry it.
CREATE TABLE control.documents (
  document_id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  collection_id uuid NOT NULL REFERENCES control.collections ON DELETE CASCADE,
  content jsonb NOT NULL,
  bytes integer NOT NULL,
  sealed bytea NOT NULL,
  added_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE control.documents ALTER COLUMN sealed SET STORAGE EXTERNAL;  -- what is encrypted does not compress
CREATE INDEX documents_by_collection ON control.documents (collection_id, document_id);

ALTER TABLE control.collections ENABLE ROW LEVEL SECURITY;
ALTER TABLE control.documents ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON control.collections TO parley_command_api, parley_worker USING (tenant_id = control.current_tenant());
CREATE POLICY tenant ON control.documents TO parley_command_api, parley_worker USING (tenant_id = control.current_tenant());
GRANT SELECT, INSERT, DELETE, UPDATE (name) ON control.collections TO parley_command_api;
GRANT SELECT (document_id, tenant_id, collection_id, content, bytes, added_at), INSERT, DELETE ON control.documents
  TO parley_command_api;
GRANT SELECT ON control.collections, control.documents TO parley_worker;

CREATE SCHEMA knowledge;
GRANT USAGE ON SCHEMA knowledge TO parley_worker, parley_query_api, parley_command_api;

-- How far the newest ingestion of a document has come, and whose chunks are shown.
CREATE TABLE knowledge.ingestions (
  document_id uuid PRIMARY KEY REFERENCES control.documents ON DELETE CASCADE,
  tenant_id uuid NOT NULL,
  newest uuid NOT NULL,
  shown uuid,
  attempts integer NOT NULL,
  terminal bytea
);
ALTER TABLE knowledge.ingestions ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON knowledge.ingestions TO parley_worker USING (tenant_id = control.current_tenant());
GRANT SELECT, INSERT, UPDATE ON knowledge.ingestions TO parley_worker;

-- Makes the table of chunks where Postgres has pgvector, and says whether it is there. `parley migrate` calls it each time,
-- so that collections begin to work once the extension was installed.
CREATE FUNCTION knowledge.make_chunks() RETURNS boolean LANGUAGE plpgsql
AS $$
DECLARE
  dimensions integer;
  version text;
BEGIN
  IF to_regclass('knowledge.chunks') IS NOT NULL THEN
    RETURN true;
  END IF;
  SELECT coalesce(installed_version, default_version) INTO version FROM pg_available_extensions WHERE name = 'vector';
  -- Older ones have no halfvec, or scan an index once only where a filter needs more.
  IF version IS NULL OR string_to_array(substring(version FROM '^\d+\.\d+'), '.')::integer[] < ARRAY[0, 8] THEN
    RETURN false;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'vector') THEN
    BEGIN
      CREATE EXTENSION vector WITH SCHEMA public;
    EXCEPTION WHEN insufficient_privilege THEN
      RETURN false;
    END;
  END IF;
  CREATE TABLE knowledge.chunks (
    chunk_id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    collection_id uuid NOT NULL,
    -- Not the document's own row: who deletes that and who adds a chunk would wait for each other.
    document_id uuid NOT NULL REFERENCES knowledge.ingestions ON DELETE CASCADE,
    ingestion_id uuid NOT NULL,
    ordinal integer NOT NULL,
    headings text NOT NULL,
    text text NOT NULL,
    words tsvector NOT NULL,
    embedder text NOT NULL,
    dimensions integer NOT NULL,
    embedding public.vector NOT NULL,
    UNIQUE (document_id, ingestion_id, ordinal)
  );
  CREATE INDEX chunks_by_collection ON knowledge.chunks (collection_id);
  -- One index for each size that embedders often have; other sizes are compared one by one.
  FOREACH dimensions IN ARRAY ARRAY[384, 512, 768, 1024, 1536] LOOP
    EXECUTE format(
      'CREATE INDEX chunks_by_meaning_%1$s ON knowledge.chunks USING hnsw ((embedding::public.vector(%1$s)) public.vector_cosine_ops)
       WHERE dimensions = %1$s', dimensions);
  END LOOP;
  CREATE INDEX chunks_by_meaning_3072 ON knowledge.chunks
    USING hnsw ((embedding::public.halfvec(3072)) public.halfvec_cosine_ops) WHERE dimensions = 3072;
  ALTER TABLE knowledge.chunks ENABLE ROW LEVEL SECURITY;
  CREATE POLICY tenant ON knowledge.chunks TO parley_worker, parley_query_api USING (tenant_id = control.current_tenant());
  GRANT SELECT, INSERT, DELETE ON knowledge.chunks TO parley_worker;
  GRANT SELECT (chunk_id, tenant_id, collection_id, document_id, ordinal, headings, text) ON knowledge.chunks TO parley_query_api;
  RETURN true;
END $$;
REVOKE ALL ON FUNCTION knowledge.make_chunks() FROM public;
SELECT knowledge.make_chunks();
