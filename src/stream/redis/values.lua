-- Reads a page of last values, by position.
-- KEYS  values, topics   ARGV  after this position, at most so many
-- Returns topic, value, topic, value, …
local page = {}
local topics = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'LIMIT', 0, ARGV[2])
for _, topic in ipairs(topics) do
    local value = redis.call('HGET', KEYS[1], topic)
    if value then
        page[#page + 1] = topic
        page[#page + 1] = value
    end
end
return page
