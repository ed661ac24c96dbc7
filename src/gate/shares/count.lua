-- Counts the sessions of addresses over all instances that are alive, and lets in who asks. An instance tells how many
-- it has, never how many more or fewer: what it told twice, or in vain, does no harm.
-- KEYS  instances, then one for each address
-- ARGV  instance, its account, its turn on it, after how many ms of silence an instance is dead, for how many ms numbers
--       are kept, how many sessions an address may have, then for each address: how many endpoints, and of each its name
--       and how many are in there; how many ask, and of each its endpoint's name and how many that allows (empty: any)
-- Returns nothing if the turn before is not known: the teller was taken for dead, the server lost something, or this
-- came late. Else how many instances are alive, and of each that asks 0 (it is in), 1 (too many) or 2 (too many there).
local instances, mine, turn = KEYS[1], ARGV[1] .. '.', tonumber(ARGV[3])
local me, silence, keep, most = mine .. ARGV[2], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local alive, living = {}, 0
local all = redis.call('HGETALL', instances)
for i = 1, #all, 2 do
    local id, heard, last = all[i], string.match(all[i + 1], '^(%d+) (%d+)$')
    local former = id ~= me and string.sub(id, 1, #mine) == mine
    if heard and not former and math.abs(now - tonumber(heard)) < silence then
        alive[id] = tonumber(last)
        living = living + 1
    else
        redis.call('HDEL', instances, id)
    end
end
if turn > 1 and alive[me] ~= turn - 1 then
    return {}
end
if not alive[me] then
    living = living + 1
end
redis.call('HSET', instances, me, string.format('%.0f %.0f', now, turn))
redis.call('PEXPIRE', instances, keep)

local answers, at = { living }, 7
for k = 2, #KEYS do
    local key, inside, there, total = KEYS[k], {}, {}, 0
    local function add(counts, endpoint, sessions)
        counts[endpoint] = (counts[endpoint] or 0) + sessions
    end
    at = at + 1
    for _ = 1, tonumber(ARGV[at - 1]) do
        local endpoint, sessions = ARGV[at], tonumber(ARGV[at + 1])
        add(inside, endpoint, sessions)
        add(there, endpoint, sessions)
        total = total + sessions
        at = at + 2
    end
    local before = {}
    local fields = redis.call('HGETALL', key)
    for i = 1, #fields, 2 do
        local id, endpoint = string.match(fields[i], '^(%S+) (.*)$')
        if id == me then
            before[endpoint] = tonumber(fields[i + 1])
        elseif alive[id] then
            add(there, endpoint, tonumber(fields[i + 1]))
            total = total + tonumber(fields[i + 1])
        else
            redis.call('HDEL', key, fields[i])
        end
    end
    at = at + 1
    for _ = 1, tonumber(ARGV[at - 1]) do
        local endpoint, most_there = ARGV[at], tonumber(ARGV[at + 1])
        local answer = 0
        if total >= most then
            answer = 1
        elseif most_there and (there[endpoint] or 0) >= most_there then
            answer = 2
        else
            add(inside, endpoint, 1)
            add(there, endpoint, 1)
            total = total + 1
        end
        answers[#answers + 1] = answer
        at = at + 2
    end
    for endpoint, sessions in pairs(inside) do
        if before[endpoint] ~= sessions then
            redis.call('HSET', key, me .. ' ' .. endpoint, sessions)
        end
        before[endpoint] = nil
    end
    for endpoint in pairs(before) do
        redis.call('HDEL', key, me .. ' ' .. endpoint)
    end
    redis.call('PEXPIRE', key, keep)
end
return answers
