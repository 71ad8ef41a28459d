-- Whose provider key served the attempt: the platform's or the tenant's own; null: nobody knows.
ALTER TABLE usage ADD COLUMN paid_by text CHECK (paid_by IN ('platform', 'tenant'));
