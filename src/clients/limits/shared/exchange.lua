-- KEYS: a hash for each row; its field `sum` is what all replicas have counted, the others are theirs.
-- ARGV: the replica, whether to take, then of each row: its whole count of the window, what the request takes, limit, end.
local replica, take = ARGV[1], ARGV[2] == '1'
local out, fits = {1}, true
-- The largest number below 2^63, which is what Redis returns as a whole number: a model may claim more. Up to 2^53 no count
-- is rounded.
local most = 9223372036854774784

-- A count as it is written; nil where somebody else has written something else.
local function count(text)
  local value = tonumber(text)
  if value and value >= 0 then
    return math.min(value, most)
  end
end

-- The sum of what replicas have counted, where the one that is kept is none.
local function summed(key)
  local sum, fields = 0, redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    if fields[i] ~= 'sum' then
      sum = sum + (count(fields[i + 1]) or 0)
    end
  end
  return math.min(sum, most)
end

local function keep(key, sum, mine, finish)
  redis.call('HSET', key, 'sum', string.format('%.0f', sum), replica, string.format('%.0f', mine))
  if finish > 0 then
    redis.call('EXPIREAT', key, finish)
  end
end

for i, key in ipairs(KEYS) do
  local own, takes, limit = count(ARGV[4 * i - 1]), tonumber(ARGV[4 * i]), tonumber(ARGV[4 * i + 1])
  local held = redis.pcall('HMGET', key, 'sum', replica)
  if held.err then
    if not string.find(held.err, '^WRONGTYPE') then
      return held
    end
    redis.call('DEL', key)
    held = {}
  end
  local before = count(held[1] or '0') or summed(key)
  local mine = count(held[2] or '0') or 0
  local sum = before
  if own > mine then
    sum = math.min(before + (own - mine), most)
    mine = own
    keep(key, sum, mine, tonumber(ARGV[4 * i + 2]))
  end
  if sum + math.max(takes, 1) > limit then
    fits = false
  end
  out[3 * i - 1], out[3 * i], out[3 * i + 1] = before, sum, mine
end
if not take or not fits then
  out[1] = 0
  return out
end
for i, key in ipairs(KEYS) do
  local takes = tonumber(ARGV[4 * i])
  if takes > 0 then
    keep(key, math.min(out[3 * i] + takes, most), out[3 * i + 1] + takes, tonumber(ARGV[4 * i + 2]))
  end
end
return out
