-- Who appends what a source says: takes, keeps or gives back its lease. Times are the server's.
-- KEYS  lease            ARGV  who asks, ttl in ms, may take it (1), gives it back (1), and what a holder says: its fence,
--                              and up to which name everything is appended, in two numbers (empty: as before)
-- Returns whether it is the asker's, its fence, the fence before this was asked, that name in two texts (empty: none), for
-- how long it has been free in ms (-1: it is not), whether anybody ever held it.
local lease, me, ttl = KEYS[1], ARGV[1], tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local kept = redis.call('HMGET', lease, 'holder', 'fence', 'ends', 'marker', 'count')
local holder, fence, ends = kept[1] or '', tonumber(kept[2] or 0), tonumber(kept[3] or now)
local marker, count, known = kept[4] or '', kept[5] or '', kept[2] and 1 or 0
local mine, free, before = 0, -1, fence
-- Who held it until it slept speaks of its own time.
local says = tonumber(ARGV[5]) == fence
if holder == me then
    mine = 1
elseif ends <= now then
    free = now - ends
    if ARGV[3] == '1' then
        -- By the clock, so that it rises as well if Redis has lost what it knew: who held it then must not seem to now.
        mine, fence, free = 1, math.max(fence + 1, now), -1
    end
end
if mine == 1 then
    if says then
        marker, count = ARGV[6], ARGV[7]
    end
    if ARGV[4] == '1' then
        mine, free, ttl, me = 0, 0, 0, ''
    end
    local function text(number)
        return string.format('%.0f', number)
    end
    redis.call('HSET', lease, 'holder', me, 'fence', text(fence), 'ends', text(now + ttl), 'marker', marker, 'count', count)
    redis.call('PEXPIRE', lease, string.format('%.0f', 30 * 24 * 3600 * 1000))
end
return { mine, fence, before, marker, count, free, known }
