-- How likely the model held the tokens of each delta, where that was asked for.
ALTER TABLE messages ADD COLUMN logprobs jsonb;
