-- Texts that a request had embedded, whose id stands as the generation's; null: it is an attempt of a generation.
ALTER TABLE usage ADD COLUMN inputs integer;
