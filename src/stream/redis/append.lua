-- Appends a batch to one partition, whole or not at all.
-- KEYS  log, meta, keys, order, values, topics, and where a source is (if it has names)
-- ARGV  run id, time in ms (empty: the server's), an epoch for a new life, entries to keep, max_age in ms (0: none),
--       retain, most keys, fence (empty: no source), two known places (epoch and position each), then of each draft:
--       topic, kind, payload, digest, window in ms (or `known`: only where its source appended before), and its name in
--       two numbers (empty: none)
-- Returns 0 to a holder that has been overtaken, else two numbers for each draft: epoch and position; of a duplicate the
-- position is negative, and of what its source had appended before both are 0.
local log, meta, keys, order, values, topics, at =
    KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local run, now, candidate = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local most_entries, max_age, retain, most_keys = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local fence = tonumber(ARGV[8])
-- As long as a source may rest and still be known.
local MONTH = 30 * 24 * 3600 * 1000

local marker, count = -1, -1
if at then
    local stands = redis.call('HMGET', at, 'fence', 'marker', 'count')
    if fence < tonumber(stands[1] or 0) then
        return 0
    end
    marker, count = tonumber(stands[2] or -1), tonumber(stands[3] or -1)
end

-- Names that two processes gave tell nothing about each other: see `Name`.
local function comes_before(own_marker, own_count)
    local of_one = math.floor(own_count / 2 ^ 32) == math.floor(count / 2 ^ 32)
    return of_one and (own_marker < marker or (own_marker == marker and own_count <= count))
end

local epoch, position, time, past, told =
    life(log, meta, run, candidate, { ARGV[9], ARGV[10], ARGV[11], ARGV[12] })
if not now then
    local clock = redis.call('TIME')
    now = clock[1] * 1000 + math.floor(clock[2] / 1000)
end
if now < time then
    now = time
end

local placed, longest = {}, 0
for i = 13, #ARGV, 7 do
    local topic, kind, payload, digest, window = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
    local own_marker, own_count = tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6])
    local known = false
    if own_marker then
        if comes_before(own_marker, own_count) or (window == 'known' and marker < 0) then
            known = true
            placed[#placed + 1] = 0
            placed[#placed + 1] = 0
        else
            marker, count = own_marker, own_count
        end
    end
    if not known and digest ~= '' then
        local first = redis.call('HGET', keys, digest)
        if first then
            local its_epoch, its_position, ends = string.match(first, '^(%d+) (%d+) (%d+)$')
            if now < tonumber(ends) then
                known = true
                placed[#placed + 1] = tonumber(its_epoch)
                placed[#placed + 1] = -tonumber(its_position)
            end
        end
    end
    if not known then
        position = position + 1
        local here = text(position)
        redis.call('XADD', log, text(now) .. '-' .. here, 'epoch', epoch, 'topic', topic, 'kind', kind, 'data', payload)
        if digest ~= '' then
            redis.call('HSET', keys, digest, epoch .. ' ' .. here .. ' ' .. text(now + tonumber(window)))
            redis.call('ZADD', order, here, digest)
            longest = math.max(longest, tonumber(window))
        end
        if kind == 'json clear' then
            redis.call('HDEL', values, topic)
            redis.call('ZREM', topics, topic)
        elseif retain > 0 and kind ~= 'gap' then
            redis.call('HSET', values, topic, epoch .. ' ' .. here .. ' ' .. text(now) .. ' ' .. kind .. '\n' .. payload)
            redis.call('ZADD', topics, here, topic)
        end
        placed[#placed + 1] = tonumber(epoch)
        placed[#placed + 1] = position
    end
end

keep(meta, run, epoch, position, now, past, told)
redis.call('XTRIM', log, 'MAXLEN', '~', most_entries)
if max_age > 0 then
    redis.call('XTRIM', log, 'MINID', '~', text(math.max(now - max_age, 0)))
    redis.call('PEXPIRE', log, text(max_age + 60000))
else
    redis.call('PERSIST', log)
end
if retain > 0 then
    local above = redis.call('ZCARD', topics) - retain
    if above > 0 then
        local oldest = redis.call('ZPOPMIN', topics, above)
        for i = 1, #oldest, 2 do
            redis.call('HDEL', values, oldest[i])
        end
    end
end
if longest > 0 then
    -- Two go for each that comes, so that what is over does not gather; and never more than so many stay.
    for _ = 1, #placed do
        local oldest = redis.call('ZRANGE', order, 0, 0)[1]
        local first = oldest and redis.call('HGET', keys, oldest)
        local ends = first and tonumber(string.match(first, '(%d+)$'))
        if not oldest or (ends and now < ends and redis.call('ZCARD', order) <= most_keys) then
            break
        end
        redis.call('ZREM', order, oldest)
        redis.call('HDEL', keys, oldest)
    end
    for _, key in ipairs({ keys, order }) do
        redis.call('PEXPIRE', key, text(longest + 60000), 'NX')
        redis.call('PEXPIRE', key, text(longest + 60000), 'GT')
    end
end
if at then
    if marker >= 0 then
        redis.call('HSET', at, 'fence', text(fence), 'marker', text(marker), 'count', text(count))
    else
        redis.call('HSET', at, 'fence', text(fence))
    end
    redis.call('PEXPIRE', at, text(MONTH))
end
return placed
