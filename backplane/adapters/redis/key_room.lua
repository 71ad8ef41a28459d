-- Room of the keys of one ring. Times are whole milliseconds by this server's clock; Redis truncates Lua's floats.
--
-- KEYS[1]  the ring's epoch: an id, gone where the counters were lost
-- KEYS[2]  there while no key has room for longer than a moment: `rests` or `window`
-- KEYS[3…] four for each key: window (ticket → when it was counted), tokens (ticket → tokens), running (ticket → lease),
--          state (sum of tokens, rest, reason, learnt limits)
-- ARGV[1]  what to do; the others are its own

local PENDING = 9007199254740991
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function key_at(place)
  local base = 3 + (place - 1) * 4
  return {window = KEYS[base], tokens = KEYS[base + 1], running = KEYS[base + 2], state = KEYS[base + 3]}
end

local function keep(key, ms)
  for _, name in pairs(key) do
    if redis.call('PTTL', name) < ms then
      redis.call('PEXPIRE', name, ms)
    end
  end
end

local function number(text)
  return tonumber(text or '') or 0
end

local function forget(key, ticket)
  local tokens = number(redis.call('HGET', key.tokens, ticket))
  redis.call('HDEL', key.tokens, ticket)
  redis.call('ZREM', key.window, ticket)
  redis.call('HINCRBY', key.state, 'tokens', -tokens)
end

-- What left the window leaves the counts; what was not renewed has ended, and was counted at the latest now.
local function settle(key, window_ms)
  for _, ticket in ipairs(redis.call('ZRANGEBYSCORE', key.running, '-inf', now)) do
    redis.call('ZREM', key.running, ticket)
    if number(redis.call('ZSCORE', key.window, ticket)) == PENDING then
      redis.call('ZADD', key.window, now, ticket)
    end
  end
  for _, ticket in ipairs(redis.call('ZRANGEBYSCORE', key.window, '-inf', now - window_ms)) do
    forget(key, ticket)
  end
end

local function limit(learnt, configured)
  local said = number(learnt)
  return said > 0 and said or number(configured)
end

-- When the oldest ticket leaves the window; soon where nobody can say.
local function leaves(key, place, window_ms, soon_ms)
  local entry = redis.call('ZRANGE', key.window, place, place, 'WITHSCORES')
  if not entry[2] or tonumber(entry[2]) == PENDING then
    return now + soon_ms
  end
  return tonumber(entry[2]) + window_ms + 1
end

-- Returns thousandths of room; else nil, when there may be some, and, where it rests, why.
local function room(key, wanted, rpm, tpm, concurrency, window_ms, soon_ms)
  local rest, reason, sum, learnt_rpm, learnt_tpm =
    unpack(redis.call('HMGET', key.state, 'rest', 'reason', 'tokens', 'rpm', 'tpm'))
  if number(rest) > now then
    return nil, number(rest), reason or ''
  end
  rpm, tpm, sum = limit(learnt_rpm, rpm), limit(learnt_tpm, tpm), number(sum)
  local left = 1000
  if rpm > 0 then
    local requests = redis.call('ZCARD', key.window)
    if requests >= rpm then
      return nil, leaves(key, requests - rpm, window_ms, soon_ms)
    end
    left = math.min(left, math.floor((rpm - requests) * 1000 / rpm))
  end
  if tpm > 0 then
    if sum > 0 and sum + wanted > tpm then
      local place, freed = 0, 0
      local over = math.min(sum, sum + wanted - tpm)
      for _, ticket in ipairs(redis.call('ZRANGE', key.window, 0, -1)) do
        freed = freed + number(redis.call('HGET', key.tokens, ticket))
        if freed >= over then
          break
        end
        place = place + 1
      end
      return nil, leaves(key, place, window_ms, soon_ms)
    end
    left = math.min(left, math.floor(math.max(0, tpm - sum) * 1000 / tpm))
  end
  if concurrency > 0 then
    local running = redis.call('ZCARD', key.running)
    if running >= concurrency then
      return nil, now + soon_ms
    end
    left = math.min(left, math.floor((concurrency - running) * 1000 / concurrency))
  end
  return left, nil
end

local actions = {}

-- ticket, tokens, window, lease, soon (ms), known epoch, fresh epoch, then rpm, tpm, concurrency of each key
function actions.take(ticket, wanted, window_ms, lease_ms, soon_ms, known, fresh, ...)
  local limits = {...}
  wanted, window_ms, lease_ms, soon_ms = tonumber(wanted), tonumber(window_ms), tonumber(lease_ms), tonumber(soon_ms)
  local epoch = redis.call('GET', KEYS[1])
  if not epoch then
    epoch = fresh
    redis.call('SET', KEYS[1], epoch)
    if known ~= '' then
      -- Somebody knew counts that are lost: nothing is asked until whatever they held has left every window.
      for place = 1, #limits / 3 do
        local key = key_at(place)
        redis.call('HSET', key.state, 'rest', now + window_ms, 'reason', 'counters_lost')
        keep(key, window_ms * 2)
      end
    end
  end
  redis.call('PEXPIRE', KEYS[1], 86400000)
  local best, most, running, earliest, why, useless = nil, -1, 0, nil, nil, 0
  for place = 1, #limits / 3 do
    local key = key_at(place)
    settle(key, window_ms)
    local left, when, rests = room(
      key, wanted, tonumber(limits[place * 3 - 2]), tonumber(limits[place * 3 - 1]), tonumber(limits[place * 3]),
      window_ms, soon_ms)
    if left then
      local here = redis.call('ZCARD', key.running)
      if left > most or (left == most and here < running) then
        best, most, running = place, left, here
      end
    else
      if not earliest or when < earliest then
        -- What a provider says is used up fills its window.
        earliest, why = when, (rests == nil or rests == 'nothing_left') and 'window' or 'rests'
      end
      useless = useless + (rests and string.sub(rests, 1, 4) == 'key_' and 1 or 0)
    end
  end
  if not best then
    local wait_ms = math.max(1, (earliest or now + window_ms) - now)
    if wait_ms > soon_ms then
      redis.call('SET', KEYS[2], why, 'PX', wait_ms)
    end
    return {0, wait_ms, epoch, useless * 3 == #limits and 1 or 0}
  end
  redis.call('DEL', KEYS[2])
  local key = key_at(best)
  redis.call('ZADD', key.window, PENDING, ticket)
  redis.call('HSET', key.tokens, ticket, wanted)
  redis.call('HINCRBY', key.state, 'tokens', wanted)
  redis.call('ZADD', key.running, now + lease_ms, ticket)
  keep(key, window_ms * 2 + lease_ms)
  return {best, 0, epoch, 0}
end

function actions.counted(ticket)
  if redis.call('ZSCORE', key_at(1).window, ticket) then
    redis.call('ZADD', key_at(1).window, now, ticket)
  end
  return {}
end

function actions.done(ticket, used)
  local key = key_at(1)
  redis.call('ZREM', key.running, ticket)
  local score = redis.call('ZSCORE', key.window, ticket)
  if not score then
    return {}
  end
  if tonumber(score) == PENDING then
    redis.call('ZADD', key.window, now, ticket)
  end
  if used ~= '' then
    local reserved = number(redis.call('HGET', key.tokens, ticket))
    redis.call('HSET', key.tokens, ticket, used)
    redis.call('HINCRBY', key.state, 'tokens', tonumber(used) - reserved)
  end
  return {}
end

function actions.give_back(ticket)
  local key = key_at(1)
  redis.call('ZREM', key.running, ticket)
  if redis.call('ZSCORE', key.window, ticket) then
    forget(key, ticket)
  end
  return {}
end

function actions.renew(lease_ms, window_ms, ...)
  for place, ticket in ipairs({...}) do
    local key = key_at(place)
    if redis.call('ZSCORE', key.running, ticket) then
      redis.call('ZADD', key.running, now + tonumber(lease_ms), ticket)
      keep(key, tonumber(window_ms) * 2 + tonumber(lease_ms))
    end
  end
  return {}
end

function actions.rest(ms, reason, window_ms)
  local key = key_at(1)
  local until_ms = now + tonumber(ms)
  local rest, known = unpack(redis.call('HMGET', key.state, 'rest', 'reason'))
  if number(rest) >= until_ms then
    return {0}
  end
  redis.call('HSET', key.state, 'rest', until_ms, 'reason', reason)
  keep(key, tonumber(window_ms) * 2 + tonumber(ms))
  return {number(rest) > now and known == reason and 0 or 1}
end

function actions.learn(rpm, tpm, window_ms)
  local key = key_at(1)
  if rpm ~= '' then
    redis.call('HSET', key.state, 'rpm', rpm)
  end
  if tpm ~= '' then
    redis.call('HSET', key.state, 'tpm', tpm)
  end
  keep(key, tonumber(window_ms) * 2)
  return {}
end

function actions.look(window_ms)
  local found = {}
  for place = 1, (#KEYS - 1) / 4 do
    local key = key_at(place)
    settle(key, tonumber(window_ms))
    local rest, reason, sum, rpm, tpm =
      unpack(redis.call('HMGET', key.state, 'rest', 'reason', 'tokens', 'rpm', 'tpm'))
    found[place] = {
      redis.call('ZCARD', key.window), number(sum), redis.call('ZCARD', key.running),
      math.max(0, number(rest) - now), reason or '', number(rpm), number(tpm)}
  end
  return found
end

return actions[ARGV[1]](unpack(ARGV, 2))
