-- Whether it was begun by itself: then no prompt says whose it is, and since when.
ALTER TABLE conversations ADD COLUMN begun boolean NOT NULL DEFAULT false;
