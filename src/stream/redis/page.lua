-- Reads the entries of some positions. An entry's id is its time and its position, and both only rise: so the time at
-- which a position stands is found by halving.
-- KEYS  log, meta        ARGV  first and last position
-- Returns the present epoch, the oldest position that is kept from the first one on (0: none), then the entries.
local epoch = redis.call('HGET', KEYS[2], 'epoch') or '0'
local log, first, last = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])

local function parts(id)
    local time, position = string.match(id, '^(%d+)%-(%d+)$')
    return tonumber(time), tonumber(position)
end

local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
if not oldest then
    return { epoch, 0, {} }
end
local from, at = parts(oldest[1])
if at < first then
    local to = parts(redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1][1]) + 1
    -- The first time from which on all positions are at least `first`.
    while from < to do
        local middle = math.floor((from + to) / 2)
        local entry = redis.call('XRANGE', log, string.format('%.0f', middle), '+', 'COUNT', 1)[1]
        local _, position = parts(entry and entry[1] or '0-0')
        if entry and position < first then
            from = middle + 1
        else
            to = middle
        end
    end
    from = from - 1
end
local start = string.format('%.0f-%.0f', from, at < first and first or 0)
local entries = redis.call('XRANGE', log, start, '+', 'COUNT', last - first + 1)
local _, begins = parts(entries[1] and entries[1][1] or '0-0')
while #entries > 0 do
    local _, position = parts(entries[#entries][1])
    if position <= last then
        break
    end
    entries[#entries] = nil
end
return { epoch, begins, entries }
