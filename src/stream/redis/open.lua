-- Looks where a partition is, and begins its new life if another process wrote last.
-- KEYS  log, meta        ARGV  run id, an epoch for a new life, two known places (epoch, position)
-- Returns epoch, last position, last time, past lives, the oldest position that is kept.
local log, meta, run = KEYS[1], KEYS[2], ARGV[1]
local epoch, position, time, past, told, news =
    life(log, meta, run, ARGV[2], { ARGV[3], ARGV[4], ARGV[5], ARGV[6] })
if news then
    keep(meta, run, epoch, position, time, past, told)
end
local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
local first = oldest and string.match(oldest[1], '%-(%d+)$') or text(position + 1)
return { epoch, text(position), text(time), past, first }
