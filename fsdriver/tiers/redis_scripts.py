"""What Redis does in one step each, for `fsdriver.tiers.redis_catalog`: scripts in Lua, and the names of what they keep.

All names of a stack begin with ``KEYS[1]``, which holds the hash tag of the stack, so that a cluster keeps them together:

========  ===========  ===================================================================================================
``:r``    hash         records: ``o`` and the key: serial, token, size, whether it owes, tiers, content; ``u`` and the key: uses
``:k``    sorted set   keys, in the order of their bytes
``:d``    sorted set   directory, NUL, name: the same, to list directories
``:w``    sorted set   keys with copies that have to go
``:h``    hash         holdings: ``o`` and ``b`` and the tier: objects and bytes
``:md``   hash         moves: by their names (key, version, target, with NULs between them)
``:mn``   sorted set   all moves, by number
``:mk``   sorted set   all moves, by name
``:due``  sorted set   moves to be claimed, by number
``:late`` sorted set   moves that are tried later, by time
``:held`` sorted set   moves that were claimed, by the time at which the claim ends (the server's, in milliseconds)
``:mo``   hash         who claimed them
``:seq``  number       of the last move
========  ===========  ===================================================================================================
"""

from __future__ import annotations

from typing import Final

_RECORDS: Final = r"""
local base = KEYS[1]
local call = redis.call

-- A stored record: serial, token of the change, size, 1 if it owes removals, tiers with good copies, content.
local function parts(stored)
  return string.match(stored, '^(%d+) (%w*) (%d+) (%d) (%S*) (.*)$')
end

local function account(size, tiers, sign)
  for tier in string.gmatch(tiers, '[^,]+') do
    call('HINCRBY', base .. ':h', 'o' .. tier, sign .. '1')
    local sum = size == '0' and '0' or sign .. size  -- -0 is no number
    call('HINCRBY', base .. ':h', 'b' .. tier, sum)
  end
end

local function stamp()
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end

local function store(key, child, serial, token, stored)
  local record = string.format('%.0f', serial) .. ' ' .. token .. ' ' .. stored
  local _, _, size, owes, tiers = parts(record)
  call('HSET', base .. ':r', 'o' .. key, record)
  call('ZADD', base .. ':k', 0, key)
  call('ZADD', base .. ':d', 0, child)
  if owes == '1' then call('ZADD', base .. ':w', 0, key) else call('ZREM', base .. ':w', key) end
  account(size, tiers, '')
end
"""
_MOVES: Final = r"""
local function owe(name, data, not_before)
  if call('HSETNX', base .. ':md', name, data) == 0 then return 0 end
  local number = call('INCR', base .. ':seq')
  call('ZADD', base .. ':mn', number, name)
  call('ZADD', base .. ':mk', 0, name)
  if tonumber(not_before) > 0 then
    call('ZADD', base .. ':late', not_before, name)
  else
    call('ZADD', base .. ':due', number, name)
  end
  return 1
end

local function drop(name)
  for _, set in ipairs({':mn', ':mk', ':due', ':late', ':held'}) do call('ZREM', base .. set, name) end
  call('HDEL', base .. ':md', name)
  call('HDEL', base .. ':mo', name)
end

local function free(name)
  call('ZREM', base .. ':held', name)
  call('ZREM', base .. ':late', name)
  call('HDEL', base .. ':mo', name)
  local number = call('ZSCORE', base .. ':mn', name)
  if number then call('ZADD', base .. ':due', number, name) end
end
"""

SWAP: Final = (
    _RECORDS
    + _MOVES
    + r"""
-- key, expected serial, token, content ('': remove), uses, child, name of the move that is done (''),
-- for each move that is owed from now on: name, data, not before
local key, expected, token, stored, uses, child, done = unpack(ARGV, 1, 7)
local old = call('HMGET', base .. ':r', 'o' .. key, 'u' .. key)
local serial, by, size, owes, tiers = '0', '', '0', '0', ''
if old[1] then serial, by, size, owes, tiers = parts(old[1]) end
if old[1] and by == token then return {serial, old[2]} end  -- asked again: the answer was lost
if serial ~= expected then return false end
account(size, tiers, '-')
local made = math.max(tonumber(serial) + 1, stamp())
if stored == '' then
  call('HDEL', base .. ':r', 'o' .. key, 'u' .. key)
  call('ZREM', base .. ':k', key)
  call('ZREM', base .. ':d', child)
  call('ZREM', base .. ':w', key)
else
  store(key, child, made, token, stored)
  if old[2] then uses = old[2] else call('HSET', base .. ':r', 'u' .. key, uses) end
end
if done ~= '' then drop(done) end
for at = 8, #ARGV, 3 do owe(ARGV[at], ARGV[at + 1], ARGV[at + 2]) end
return {string.format('%.0f', made), uses}
"""
)

ADOPT: Final = (
    _RECORDS
    + r"""
-- token, then for each record: key, content, uses, child
local serial = stamp()
for at = 2, #ARGV, 4 do
  local key, stored, uses, child = unpack(ARGV, at, at + 3)
  if call('HEXISTS', base .. ':r', 'o' .. key) == 0 then
    store(key, child, serial, ARGV[1], stored)
    call('HSET', base .. ':r', 'u' .. key, uses)
  end
end
return 1
"""
)

NOTE_USES: Final = r"""
-- for each record: key, how many uses more, when the last one was
for at = 1, #ARGV, 3 do
  local key, more, now = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local old = redis.call('HMGET', KEYS[1] .. ':r', 'o' .. key, 'u' .. key)
  if old[1] then
    local first, last, count = string.match(old[2] or '0 0 0', '^(%S+) (%S+) (%S+)$')
    first, last, count = tonumber(first), tonumber(last), tonumber(count)
    if count == 0 then first = now end
    local uses = string.format('%.17g %.17g %.0f', first, math.max(last, now), count + more)
    redis.call('HSET', KEYS[1] .. ':r', 'u' .. key, uses)
  end
end
return 1
"""

OWE: Final = (
    "local base = KEYS[1]\nlocal call = redis.call\n"
    + _MOVES
    + r"""
-- for each move: name, data, not before
local new = 0
for at = 1, #ARGV, 3 do new = new + owe(ARGV[at], ARGV[at + 1], ARGV[at + 2]) end
return new
"""
)

CLAIM: Final = (
    "local base = KEYS[1]\nlocal call = redis.call\n"
    + _MOVES
    + r"""
-- owner, now, how many, milliseconds for which they are the owner's
local time = call('TIME')
local clock = time[1] * 1000 + math.floor(time[2] / 1000)
for _, name in ipairs(call('ZRANGEBYSCORE', base .. ':held', '-inf', clock, 'LIMIT', 0, 1000)) do free(name) end
for _, name in ipairs(call('ZRANGEBYSCORE', base .. ':late', '-inf', ARGV[2], 'LIMIT', 0, 1000)) do free(name) end
local claimed = {}
for _, name in ipairs(call('ZRANGE', base .. ':due', 0, ARGV[3] - 1)) do
  call('ZREM', base .. ':due', name)
  local data = call('HGET', base .. ':md', name)
  if data then
    call('ZADD', base .. ':held', clock + ARGV[4], name)
    call('HSET', base .. ':mo', name, ARGV[1])
    table.insert(claimed, {name, call('ZSCORE', base .. ':mn', name) or '0', data})
  end
end
return claimed
"""
)

RENEW: Final = r"""
-- owner, milliseconds, names; those that are still the owner's
local time = redis.call('TIME')
local clock = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = {}
for at = 3, #ARGV do
  if redis.call('HGET', KEYS[1] .. ':mo', ARGV[at]) == ARGV[1] then
    redis.call('ZADD', KEYS[1] .. ':held', clock + ARGV[2], ARGV[at])
    table.insert(kept, ARGV[at])
  end
end
return kept
"""

RELEASE: Final = (
    "local base = KEYS[1]\nlocal call = redis.call\n"
    + _MOVES
    + r"""
-- owner, names
for at = 2, #ARGV do
  if call('HGET', base .. ':mo', ARGV[at]) == ARGV[1] then free(ARGV[at]) end
end
return 1
"""
)

END: Final = "local base = KEYS[1]\nlocal call = redis.call\n" + _MOVES + "drop(ARGV[1])\nreturn 1\n"

FAIL: Final = (
    "local base = KEYS[1]\nlocal call = redis.call\n"
    + _MOVES
    + r"""
-- owner ('' for one that nobody claimed), name, data, not before
local name = ARGV[2]
local owner = call('HGET', base .. ':mo', name) or ''
if owner ~= ARGV[1] or call('HEXISTS', base .. ':md', name) == 0 then return 0 end
free(name)
call('ZREM', base .. ':due', name)
call('HSET', base .. ':md', name, ARGV[3])
call('ZADD', base .. ':late', ARGV[4], name)
return 1
"""
)

LEAD: Final = r"""
-- owner, milliseconds: the fencing token of the lease, or 0 if it is another's
local holder = redis.call('GET', KEYS[1])
if holder then
  local owner, token = string.match(holder, '^(%S+) (%d+)$')
  if owner ~= ARGV[1] then return '0' end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return token
end
local time = redis.call('TIME')
local last = tonumber(redis.call('GET', KEYS[1] .. ':token') or '0')
local token = string.format('%.0f', math.max(last + 1, time[1] * 1000000 + time[2]))
redis.call('SET', KEYS[1] .. ':token', token)
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. token, 'NX', 'PX', ARGV[2])
return token
"""

RESIGN: Final = r"""
-- owner
local holder = redis.call('GET', KEYS[1])
if holder and string.match(holder, '^(%S+) ') == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""
