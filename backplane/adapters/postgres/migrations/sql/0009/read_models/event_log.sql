-- Only what a signature says is pruned can be deleted.
CREATE POLICY pruned ON event_log AS RESTRICTIVE FOR DELETE TO parley_projections USING (
  sequence <= (SELECT max(c.sequence) FROM read_models.checkpoints c
               WHERE c.tenant_id = event_log.tenant_id AND c.kind = 'pruned'));
GRANT DELETE ON event_log TO parley_projections;
