-- KEYS: a hash for each row; its field `sum` is what all replicas have counted, the others are theirs.
-- ARGV: the replica, whether to take, then of each row: its whole count of the window, what the request takes, limit, end.
local replica, take = ARGV[1], ARGV[2] == '1'
local out, fits = {1}, true
local function number(text)
  return string.format('%.0f', text)
end
for i, key in ipairs(KEYS) do
  local own, takes, limit = tonumber(ARGV[4 * i - 1]), tonumber(ARGV[4 * i]), tonumber(ARGV[4 * i + 1])
  local finish = tonumber(ARGV[4 * i + 2])
  local before = tonumber(redis.call('HGET', key, 'sum') or '0')
  local mine = tonumber(redis.call('HGET', key, replica) or '0')
  local sum = before
  if own > mine then
    sum = before + own - mine
    redis.call('HSET', key, 'sum', number(sum), replica, number(own))
    if finish > 0 then
      redis.call('EXPIREAT', key, finish)
    end
    mine = own
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
  local takes, finish = tonumber(ARGV[4 * i]), tonumber(ARGV[4 * i + 2])
  if takes > 0 then
    redis.call('HINCRBY', key, 'sum', takes)
    redis.call('HINCRBY', key, replica, takes)
    if finish > 0 then
      redis.call('EXPIREAT', key, finish)
    end
  end
end
return out
