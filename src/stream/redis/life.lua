-- Which life a partition is in, before anything else: another process than the one that wrote last begins a new epoch at
-- the present last position, because a restart or a failover may have lost the tail. And if whoever asks knows that
-- something was lost, that is said before anything else is appended: once for each life, in its place, for all.
-- `known`: epochs and positions that were there, says who asks (empty: none).
-- Returns epoch, last position, last time, past lives ("epoch:last,…", newest first), the lives of which it was said that
-- they lost something ("epoch,…"), whether any of that is news.
local REMEMBERED = 16

local function text(number)
    return string.format('%.0f', number)
end

-- A list with one more in front.
local function with(one, list)
    local count = 1
    for other in string.gmatch(list, '[^,]+') do
        if count == REMEMBERED then
            break
        end
        one, count = one .. ',' .. other, count + 1
    end
    return one
end

-- Whether less than this is left of an epoch.
local function is_lost(past, epoch, position)
    local left
    for one, last in string.gmatch(past, '(%d+):(%d+)') do
        left = math.min(left or tonumber(last), tonumber(last))
        if one == epoch then
            return position > left
        end
    end
    return false
end

local function life(log, meta, run, candidate, known)
    local kept = redis.call('HMGET', meta, 'epoch', 'position', 'time', 'run', 'past', 'told')
    local epoch, position, time, past, told =
        kept[1], tonumber(kept[2] or 0), tonumber(kept[3] or 0), kept[5] or '', kept[6] or ''
    local news = kept[4] ~= run
    if not epoch then
        return candidate, 0, 0, '', '', true
    end
    if news then
        past, epoch = with(epoch .. ':' .. text(position), past), candidate
    end
    for i = 1, #known, 2 do
        local one, last = known[i], tonumber(known[i + 1])
        local said = string.find(',' .. told .. ',', ',' .. one .. ',', 1, true)
        if last and one ~= epoch and not said and is_lost(past, one, last) then
            position, told, news = position + 1, with(one, told), true
            local id = text(time) .. '-' .. text(position)
            redis.call('XADD', log, id, 'epoch', epoch, 'topic', 'relay.gap.epoch', 'kind', 'gap', 'data', '["**"]')
        end
    end
    return epoch, position, time, past, told, news
end

local function keep(meta, run, epoch, position, time, past, told)
    redis.call('HSET', meta, 'epoch', epoch, 'position', text(position), 'time', text(time), 'run', run, 'past', past,
        'told', told)
end

