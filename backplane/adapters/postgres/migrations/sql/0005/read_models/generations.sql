-- For control.queue_place, which counts over all tenants.
CREATE INDEX generations_not_ended ON generations (pool, created_at) WHERE ended_at IS NULL;
CREATE INDEX generations_ended ON generations (pool, ended_at) WHERE ended_at IS NOT NULL;
