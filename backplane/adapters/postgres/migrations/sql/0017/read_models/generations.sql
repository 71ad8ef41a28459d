ALTER TABLE generations
  ADD COLUMN purpose text NOT NULL DEFAULT 'answer',
  ADD COLUMN left_out integer NOT NULL DEFAULT 0;
