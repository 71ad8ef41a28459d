-- Limits of all scopes at once. Times are whole milliseconds, money whole nano-dollars; Redis truncates Lua's floats.
--
-- KEYS[1]  what all names begin with; its hash tag keeps them in one slot:
--            epoch    which run of this server holds counters that are whole
--            rebuild  who is rebuilding them, and the step that comes next
--            holds    generation → tenant, tokens, nano-dollars, second, scopes
--            unseen   generation → when it ought to be published; those that the record has not named
--            settled  tenant → line of its record up to which everything is counted
--            scope:…  at (the last second counted), r and t (requests and tokens in the window), r0 … r60 and t0 … t60
--                     (by second), last (second of the last request), open, held (nano-dollars of what is open),
--                     d<day> and m<month> (nano-dollars spent)
-- ARGV[1]  what to do
-- ARGV[2]  the time, where it is not this server's own
-- ARGV[3…] its own

local SLOTS = 61  -- the second that has begun, and sixty whole ones
local SOON_MS = 1000
local KEEP_MS = 40 * 86400000  -- longer than a month counts
local base = KEYS[1]
local HOLDS, UNSEEN, SETTLED = base .. 'holds', base .. 'unseen', base .. 'settled'
local clock = redis.call('TIME')
local now_ms = tonumber(ARGV[2]) or clock[1] * 1000 + math.floor(clock[2] / 1000)
local now_s = math.floor(now_ms / 1000)
-- A restarted server, an old snapshot and a promoted replica all have an id of their own.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')

local function number(text)
  return tonumber(text or '') or 0
end

-- Not -0, which Redis takes for no number.
local function int(value)
  return string.format('%.0f', value == 0 and 0 or value)
end

-- Months since the year 0, of a day since 1970 (Hinnant, "chrono-compatible low-level date algorithms").
local function month_of(day)
  local z = day + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  return (yoe + era * 400 + (month <= 2 and 1 or 0)) * 12 + month - 1
end

local today = math.floor(now_s / 86400)
local this_month = month_of(today)

-- A scope as it stands now; what left the window has left its counts.
local function scope(name)
  local key = base .. 'scope:' .. name
  local at, requests, tokens, last, open, held, day, month, slot_r, slot_t = unpack(redis.call(
    'HMGET', key, 'at', 'r', 't', 'last', 'open', 'held', 'd' .. today, 'm' .. this_month,
    'r' .. now_s % SLOTS, 't' .. now_s % SLOTS))
  at = tonumber(at)
  local found = {
    key = key, second = math.max(at or now_s, now_s), requests = number(requests), tokens = number(tokens),
    last = number(last), open = number(open), held = number(held), day = number(day), month = number(month),
    slot_requests = number(slot_r), slot_tokens = number(slot_t)}
  if found.second ~= now_s then  -- the clock went back
    local slot = redis.call('HMGET', key, 'r' .. found.second % SLOTS, 't' .. found.second % SLOTS)
    found.slot_requests, found.slot_tokens = number(slot[1]), number(slot[2])
  elseif at and found.second > at then
    local fields = {}
    for second = math.max(at + 1, found.second - SLOTS + 1), found.second do
      fields[#fields + 1] = 'r' .. second % SLOTS
      fields[#fields + 1] = 't' .. second % SLOTS
    end
    for place, count in ipairs(redis.call('HMGET', key, unpack(fields))) do
      if place % 2 == 1 then
        found.requests = found.requests - number(count)
      else
        found.tokens = found.tokens - number(count)
      end
    end
    found.slot_requests, found.slot_tokens = 0, 0
    redis.call('HDEL', key, unpack(fields))
    redis.call('HSET', key, 'at', found.second, 'r', int(found.requests), 't', int(found.tokens))
  end
  return found
end

-- One more request, and what it holds.
local function admit(found, tokens, nano)
  local slot = found.second % SLOTS
  found.requests, found.tokens = found.requests + 1, found.tokens + tokens
  found.open, found.held, found.last = found.open + 1, found.held + nano, found.second
  redis.call(
    'HSET', found.key, 'at', found.second, 'r', int(found.requests), 't', int(found.tokens), 'last', found.second,
    'open', int(found.open), 'held', int(found.held),
    'r' .. slot, int(found.slot_requests + 1), 't' .. slot, int(found.slot_tokens + tokens))
  redis.call('PEXPIRE', found.key, KEEP_MS)
end

local function count(found, second, requests, tokens)
  if second <= found.second - SLOTS then
    return
  end
  redis.call('HSETNX', found.key, 'at', found.second)
  if requests ~= 0 then
    redis.call('HINCRBY', found.key, 'r', requests)
    redis.call('HINCRBY', found.key, 'r' .. second % SLOTS, requests)
  end
  if tokens ~= 0 then
    redis.call('HINCRBY', found.key, 't', int(tokens))
    redis.call('HINCRBY', found.key, 't' .. second % SLOTS, int(tokens))
  end
end

local function open(found, opened, nano)
  redis.call('HINCRBY', found.key, 'open', opened)
  redis.call('HINCRBY', found.key, 'held', int(nano))
  redis.call('PEXPIRE', found.key, KEEP_MS)
end

local function spend(found, nano, day)
  local month = month_of(day)
  if nano > 0 then
    redis.call('HINCRBY', found.key, 'd' .. day, int(nano))
    redis.call('HINCRBY', found.key, 'm' .. month, int(nano))
  end
  redis.call('HDEL', found.key, 'd' .. day - 2, 'd' .. day - 3, 'm' .. month - 2)
  redis.call('PEXPIRE', found.key, KEEP_MS)
end

local function hold_of(generation)
  local text = redis.call('HGET', HOLDS, generation)
  if not text then
    return nil
  end
  local parts = {}
  for part in string.gmatch(text, '[^\n]+') do
    parts[#parts + 1] = part
  end
  return {
    tenant = parts[1], tokens = tonumber(parts[2]), nano = tonumber(parts[3]), second = tonumber(parts[4]),
    scopes = {unpack(parts, 5)}}
end

local function hold(generation, tenant, tokens, nano, second, names)
  redis.call('HSET', HOLDS, generation, table.concat({tenant, int(tokens), int(nano), int(second), unpack(names)}, '\n'))
end

local function undo(generation)
  local held = hold_of(generation)
  redis.call('HDEL', HOLDS, generation)
  redis.call('ZREM', UNSEEN, generation)
  if held then
    for _, name in ipairs(held.scopes) do
      local found = scope(name)
      count(found, held.second, -1, -held.tokens)
      open(found, -1, -held.nano)
    end
  end
end

-- Milliseconds until so many have left the window.
local function leaves(found, letter, wanted)
  local fields = {}
  for second = found.second - SLOTS + 1, found.second do
    fields[#fields + 1] = letter .. second % SLOTS
  end
  local gone = 0
  for place, left in ipairs(redis.call('HMGET', found.key, unpack(fields))) do
    gone = gone + number(left)
    if gone >= wanted then
      return (found.second + place) * 1000 - now_ms
    end
  end
  return SLOTS * 1000
end

local next_month_ms

local function until_next_month()
  if not next_month_ms then
    local day = today + 1
    while month_of(day) == this_month do
      day = day + 1
    end
    next_month_ms = day * 86400000 - now_ms
  end
  return next_month_ms
end

-- How long a limit is in the way; nil where it is not, -1 where it always will be. `limit` is -1 where there is none.
local function wait_of(kind, limit, found, tokens, nano)
  if limit < 0 then
    return nil
  end
  if kind == 1 then
    return found.requests + 1 > limit and (limit < 1 and -1 or leaves(found, 'r', found.requests + 1 - limit)) or nil
  elseif kind == 2 then
    local over = found.tokens + tokens - limit
    return over > 0 and (tokens > limit and -1 or leaves(found, 't', over)) or nil
  elseif kind == 3 then
    return found.open + 1 > limit and (limit < 1 and -1 or SOON_MS) or nil
  end
  local spent = kind == 4 and found.day or found.month
  if spent + found.held + nano <= limit then
    return nil
  elseif nano > limit then
    return -1
  elseif spent + nano <= limit then
    return SOON_MS  -- only what is reserved stands in the way
  end
  return kind == 4 and (today + 1) * 86400000 - now_ms or until_next_month()
end

local function standing(found)
  return {
    found.requests, found.tokens, found.open, found.held, found.day, found.month,
    math.max(0, (found.last + SLOTS) * 1000 - now_ms), (today + 1) * 86400000 - now_ms, until_next_month()}
end

local actions = {}

-- generation, tenant, tokens, nano-dollars, ms until it ought to be published; then name and five limits of each scope
function actions.reserve(generation, tenant, tokens, nano, publish_ms, ...)
  local given = {...}
  tokens, nano = tonumber(tokens), tonumber(nano)
  local known = redis.call('HEXISTS', HOLDS, generation) == 1
  local names, found, limited, place, kind, longest = {}, {}, {}, 0, 0, nil
  for i = 1, #given, 6 do
    local one = scope(given[i])
    names[#names + 1], found[#found + 1] = given[i], one
    for k = 1, 5 do
      limited[#names] = limited[#names] or given[i + k] ~= '-1'
      local wait = not known and wait_of(k, tonumber(given[i + k]), one, tokens, nano)
      if wait and longest ~= -1 and (wait == -1 or not longest or wait > longest) then
        place, kind, longest = #names, k, wait
      end
    end
  end
  if known then
    if redis.call('ZSCORE', UNSEEN, generation) then
      redis.call('ZADD', UNSEEN, int(now_ms + publish_ms), generation)
    end
  elseif not longest then
    for _, one in ipairs(found) do
      admit(one, tokens, nano)
    end
    hold(generation, tenant, tokens, nano, found[1].second, names)
    redis.call('ZADD', UNSEEN, int(now_ms + publish_ms), generation)
  end
  local standings = {}
  for i, one in ipairs(found) do
    standings[i] = limited[i] and standing(one) or {}
  end
  return {known and 2 or (longest and 0 or 1), place, kind, longest or 0, standings}
end

function actions.release(generation)
  if redis.call('ZSCORE', UNSEEN, generation) then
    undo(generation)
  end
  return {1}
end

function actions.look(...)
  local standings = {}
  for i, name in ipairs({...}) do
    standings[i] = standing(scope(name))
  end
  return {1, standings}
end

function actions.counts()
  return {1}
end

function actions.cursors()
  return {1, redis.call('HGETALL', SETTLED)}
end

local changes = {}

function changes.opened(one)
  if redis.call('HEXISTS', HOLDS, one.id) == 1 then
    redis.call('ZREM', UNSEEN, one.id)
    return
  end
  if one.ended then
    return
  end
  local tokens, nano = tonumber(one.tokens), tonumber(one.nano)
  for _, name in ipairs(one.scopes) do
    admit(scope(name), tokens, nano)
  end
  hold(one.id, one.tenant, tokens, nano, now_s, one.scopes)
end

function changes.spent(one)
  local tokens, nano, day = tonumber(one.tokens), tonumber(one.nano), tonumber(one.day)
  local held = one.ends and hold_of(one.id)
  for _, name in ipairs(one.scopes) do
    spend(scope(name), nano, day)
  end
  if not held then
    for _, name in ipairs(one.scopes) do
      local found = scope(name)
      count(found, found.second, 0, tokens)
    end
    return
  end
  redis.call('HDEL', HOLDS, one.id)
  redis.call('ZREM', UNSEEN, one.id)
  for _, name in ipairs(held.scopes) do
    local found = scope(name)
    local more = tokens - held.tokens
    -- What was used beyond an estimate that has left the window is counted now.
    count(found, more > 0 and held.second <= found.second - SLOTS and found.second or held.second, 0, more)
    open(found, -1, -held.nano)
  end
end

-- tenant, the line that must be settled, the line that is settled then, what happened between them
function actions.settle(tenant, after, to, happened)
  local settled = redis.call('HGET', SETTLED, tenant) or '0'
  if settled ~= after then
    return {1, tonumber(settled)}
  end
  for _, one in ipairs(cjson.decode(happened)) do
    changes[one.what](one)
  end
  redis.call('HSET', SETTLED, tenant, to)
  return {1, tonumber(to)}
end

function actions.overdue(limit)
  local found = {}
  local late = redis.call('ZRANGEBYSCORE', UNSEEN, '-inf', int(now_ms), 'WITHSCORES', 'LIMIT', 0, limit)
  for i = 1, #late, 2 do
    local held = hold_of(late[i])
    if held then
      found[#found + 1] = {late[i], held.tenant, tonumber(late[i + 1])}
    else
      redis.call('ZREM', UNSEEN, late[i])
    end
  end
  return {1, found}
end

function actions.resolve(generation, deadline, published)
  local known = redis.call('ZSCORE', UNSEEN, generation)
  if known and tonumber(known) == tonumber(deadline) then
    if published == '1' then
      redis.call('ZREM', UNSEEN, generation)
    else
      undo(generation)
    end
  end
  return {1}
end

local rebuilding = {}

function rebuilding.begin(token)
  redis.call('DEL', base .. 'epoch')
  redis.call('SET', base .. 'rebuild', table.concat({run, token, 0}, ' '))
  return {1}
end

-- The day that it is of, then what was counted, what is open, and the settled lines, each a list
function rebuilding.load(token, step, day, counted, opened, settled)
  for _, one in ipairs(cjson.decode(counted)) do
    local found = scope(one.scope)
    count(found, found.second, tonumber(one.requests), tonumber(one.tokens))
    redis.call('HSET', found.key, 'last', found.second)
    redis.call('HINCRBY', found.key, 'd' .. day, one.day)
    redis.call('HINCRBY', found.key, 'm' .. month_of(day), one.month)
    redis.call('PEXPIRE', found.key, KEEP_MS)
  end
  for _, one in ipairs(cjson.decode(opened)) do
    for _, name in ipairs(one.scopes) do
      open(scope(name), 1, tonumber(one.nano))
    end
    hold(one.id, one.tenant, tonumber(one.tokens), tonumber(one.nano), now_s - SLOTS, one.scopes)
  end
  for _, one in ipairs(cjson.decode(settled)) do
    redis.call('HSET', SETTLED, one[1], one[2])
  end
  redis.call('SET', base .. 'rebuild', table.concat({run, token, step + 1}, ' '))
  return {1}
end

function rebuilding.finish()
  redis.call('SET', base .. 'epoch', run)
  redis.call('DEL', base .. 'rebuild')
  return {1}
end

local action = ARGV[1]
if rebuilding[action] then
  -- A step that a client sends twice, since it saw no answer, must not count twice.
  if action ~= 'begin' and redis.call('GET', base .. 'rebuild') ~= table.concat({run, ARGV[3], ARGV[4]}, ' ') then
    return {-1}
  end
  return rebuilding[action](unpack(ARGV, 3))
end
if redis.call('GET', base .. 'epoch') ~= run then
  return {-1}
end
return actions[action](unpack(ARGV, 3))
