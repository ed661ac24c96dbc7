-- Which life a partition is in, before anything else: another process than the one that wrote last begins a new epoch at
-- the present last position, because a restart or a failover may have lost the tail.
-- Returns epoch, last position, last time, past lives ("epoch:last,…", newest first), whether that is news.
local REMEMBERED = 16

local function text(number)
    return string.format('%.0f', number)
end

local function life(meta, run, candidate)
    local kept = redis.call('HMGET', meta, 'epoch', 'position', 'time', 'run', 'past')
    local epoch, position, time, past = kept[1], tonumber(kept[2] or 0), tonumber(kept[3] or 0), kept[5] or ''
    if not epoch then
        return candidate, 0, 0, '', true
    end
    if kept[4] == run then
        return epoch, position, time, past, false
    end
    local lives, count = epoch .. ':' .. text(position), 1
    for one in string.gmatch(past, '[^,]+') do
        if count == REMEMBERED then
            break
        end
        lives, count = lives .. ',' .. one, count + 1
    end
    return candidate, position, time, lives, true
end

local function keep(meta, run, epoch, position, time, past)
    redis.call('HSET', meta, 'epoch', epoch, 'position', text(position), 'time', text(time), 'run', run, 'past', past)
end

