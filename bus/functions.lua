#!lua name=sluice_1
-- bus/functions.lua - what Redis does in one step. functions.md lists keys, arguments and replies; bus/memory.c is the same in C.
--
-- Rule     validate first, write last: Redis does not roll a Function back. After the first write nothing may fail.
-- Numbers  arrive and are stored as strings of at most 15 digits, so they are exact in Lua; never tostring() them.
-- Lists    are walked, never unpacked beyond UNPACK_MAX values (Lua's stack ends at 8,000).
-- Mutants  a test build may drop the lines marked "@mutant NAME" at load; nothing else may depend on such a line.

local UNPACK_MAX = 4000
local IN_LOG = '1000000000000000'      -- score of a timer whose event stands in the command log
local SESSION_ANSWERS = 16             -- a session remembers the entries of its last frames
local FIELD_BYTES_MAX = 65536          -- one value of an answer
local ANSWER_BYTES_MAX = 131072
local ANSWER_STRINGS_MAX = 64
local ANSWER_LOG_MAX = 100000
local MAY_HOLD_MAX = 50000             -- a log longer than this is not kept for readers of class may
local TICK_MAX = 1000
local TRIM_EVERY = 64                  -- facts delivered to a stream that is trimmed by time
local FENCED = 'FENCED another owner holds this partition' -- Redis puts ERR before a word that stands alone

-- ---- small helpers ----

-- Library functions as locals: a global costs two lookups, in every loop of a commit. There are none yet while this is loaded,
-- so the first call fetches them.
local call, find, floor, format, match, max, min, number_of, spread
local SMALL, SLOTS = {}, {} -- "0" to "999" as numbers; the fields of a session's last entries

local function fetch()
    find, format, match = string.find, string.format, string.match
    floor, max, min = math.floor, math.max, math.min
    number_of, spread, call = tonumber, unpack, redis.call
    for i = 0, 999 do
        SMALL[format('%.0f', i)] = i
    end
    for i = 0, SESSION_ANSWERS - 1 do
        SLOTS[i] = 'e' .. i
    end
end

local function with_locals(callback)
    return function(keys, a)
        if not call then fetch() end
        return callback(keys, a)
    end
end

local function refuse(words)
    return redis.error_reply(words)
end

-- A non-negative integer written in at most 15 digits, or nil.
local function integer(s)
    local n = SMALL[s]
    if n then
        return n
    end
    n = s and #s <= 15 and number_of(s) -- a pattern would cost twice as much, a hundred times in one commit
    if n and n >= 0 and n % 1 == 0 then
        return n
    end
    return nil
end

local function digits(n)
    return format('%.0f', n)
end

local function time_ms()
    local t = call('TIME')
    return number_of(t[1]) * 1000 + floor(number_of(t[2]) / 1000)
end

-- "ms-seq" as two numbers, or nil.
local function id_parts(id)
    local ms, seq = match(id or '', '^(%d+)-(%d+)$')
    if not ms or #ms > 15 or #seq > 15 then
        return nil
    end
    return number_of(ms), number_of(seq)
end

local function id_less(a, b)
    local a_ms, a_seq = id_parts(a)
    local b_ms, b_seq = id_parts(b)
    return a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq)
end

local function id_after(id)
    local ms, seq = id_parts(id)
    return digits(ms) .. '-' .. digits(seq + 1)
end

local function is_type(key, wanted)
    local t = call('TYPE', key).ok
    return t == wanted or t == 'none'
end

local function last_id(stream)
    if call('EXISTS', stream) == 0 then
        return '0-0'
    end
    local info = call('XINFO', 'STREAM', stream)
    for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then
            return info[i + 1]
        end
    end
    return '0-0'
end

local function next_due(timers)
    local first = call('ZRANGEBYSCORE', timers, '-inf', '(' .. IN_LOG, 'WITHSCORES', 'LIMIT', 0, 1)
    return first[2] or ''
end

-- The lease epoch and the run id are what makes a writer the owner; the lease itself only says when another may take over.
local function owns(meta, epoch, run)
    local m = call('HMGET', meta, 'epoch', 'run')
    return m[1] == epoch and m[2] == run
end

-- Sections: a count at `at`, then count items of `width` arguments. Returns first index, count, index after; nil when short.
local function section(a, at, width)
    local count = integer(a[at])
    if not count or at + count * width > #a then
        return nil
    end
    return at + 1, count, at + 1 + count * width
end

-- Name and value pairs for one XADD: a count of strings, then the strings.
local function pairs_section(a, at)
    local first, count, after = section(a, at, 1)
    if not first or count % 2 ~= 0 or count > UNPACK_MAX then
        return nil
    end
    return first, count, after
end

-- (destination, position) pairs, at `at` to the end. "@" is an entry id, others are numbers.
local function check_relay(a, first, count)
    for i = first, first + 2 * count - 1, 2 do
        if a[i] == '@' then
            if not id_parts(a[i + 1]) then return false end
        elseif not integer(a[i + 1]) then
            return false
        end
    end
    return true
end

local function write_relay(relay, a, first, count)
    for i = first, first + 2 * count - 1, 2 do
        call('HSET', relay, a[i], a[i + 1])
    end
end

-- ---- accept: check for repeats, order, room and rate; append ----

-- The sender's own id among an event's names and values; '' when it has none.
local function id_of(a, first, last)
    for i = first, last, 2 do
        if a[i] == 'id' then return a[i + 1] end
    end
    return ''
end

-- What the session's token bucket holds at `now`, and how long until it holds one.
local function tokens_at(stored, at, now, rate, burst)
    local tokens = burst
    if stored and at then
        tokens = min(burst, number_of(stored) + max(0, now - number_of(at)) * rate / 1000)
    end
    return tokens, math.ceil((1 - tokens) * 1000 / max(rate, 1))
end

local function accept(keys, a)
    local mode, what, cap = a[1], a[2], integer(a[3])
    local rate, burst, ttl = integer(a[4]), integer(a[5]), integer(a[6])
    local first, count, after = pairs_section(a, 7)
    if not (cap and rate and burst and ttl and first) or count == 0 or after ~= #a + 1 then
        return refuse('BAD counts')
    end
    local log, session, number, slot, id, tokens, now = keys[1], keys[2], nil, nil, nil, nil, nil
    if mode == 'n' then
        number = integer(what)
        if not number or number == 0 or not session then return refuse('BAD number') end
        slot, id = SLOTS[number % SESSION_ANSWERS], id_of(a, first, after - 1)
        local s
        if rate > 0 then
            s = call('HMGET', session, 'n', slot, 'k', 't')
        else
            s = call('HMGET', session, 'n', slot)
        end
        local last = number_of(s[1] or '0')
        if number <= last then
            local entry, known -- a slot holds "<entry> <the id of that command, as its sender named it>"
            if number > last - SESSION_ANSWERS and s[2] then entry, known = match(s[2], '^(%S+) (.*)$') end
            if entry and known ~= id then return refuse('CONFLICT another command has this number') end
            return {'dup', entry or ''}
        end
        if number > last + 1 then
            return refuse('GAP ' .. digits(last))
        end
        if rate > 0 then
            now = time_ms()
            local retry_ms
            tokens, retry_ms = tokens_at(s[3], s[4], now, rate, max(burst, 1))
            if tokens < 1 then return refuse('RATE ' .. digits(retry_ms)) end
        end
    elseif mode == 'i' then
        if not session then return refuse('BAD buckets') end
        for i = 2, #keys do
            local entry = call('HGET', keys[i], what)
            if entry then return {'dup', entry} end
        end
    elseif mode ~= '-' then
        return refuse('BAD mode')
    end
    local length = call('XLEN', log)
    if length >= cap then
        return refuse('FULL ' .. digits(length))
    end
    local entry = call('XADD', log, '*', spread(a, first, after - 1))
    if mode == 'n' then
        if tokens then
            call('HSET', session, 'n', what, slot, entry .. ' ' .. id, 'k', format('%.3f', tokens - 1), 't', digits(now))
        else
            call('HSET', session, 'n', what, slot, entry .. ' ' .. id)
        end
        call('PEXPIRE', session, a[6])
    elseif mode == 'i' then
        call('HSET', keys[2], what, entry)
        call('PEXPIRE', keys[2], a[6], 'NX')
    end
    return {'ok', entry}
end

-- ---- the lease ----

-- How often was the partition taken over at this very offset with entries pending? The same run taking it again has survived them.
local function count_try(m, run, offset, has_pending)
    if not has_pending then
        return 0
    end
    local tries = number_of(m.tries or '0')
    if m.tried ~= offset then
        return 1
    end
    if m.run == run then
        return max(tries, 1)
    end
    return tries + 1
end

local function read_meta(meta)
    local names = {'epoch', 'run', 'until', 'offset', 'now', 'gen', 'tries', 'tried'}
    local values = call('HMGET', meta, spread(names))
    local m = {}
    for i, name in ipairs(names) do
        m[name] = values[i] or nil
    end
    return m
end

local function acquire(keys, a)
    local run, clock, lease = a[1], integer(a[2]), integer(a[3])
    if not run or run == '' or not clock or not lease or not a[4] then
        return refuse('BAD arguments')
    end
    local meta, log, timers = keys[1], keys[2], keys[3]
    local time, m = time_ms(), read_meta(meta)
    local left = number_of(m['until'] or '0') - time
    if m.run and m.run ~= run and left > 0 then
        return {'held', m.run, left}
    end
    local offset, last = m.offset or '0-0', last_id(log)
    local epoch = max(number_of(m.epoch or '0') + 1, time)
    local is_lost = a[4] == '1'
    if id_less(last, offset) then
        is_lost, offset = true, last -- or entries appended by a slower clock would lie before the offset, never to be read
    end
    local gen = (is_lost or not m.gen) and epoch or number_of(m.gen)
    local tries = count_try(m, run, offset, id_less(offset, last))
    local now = max(number_of(m.now or '0'), min(clock, time))
    local due = next_due(timers)
    local numbers, relayed = call('HGETALL', keys[4]), call('HGETALL', keys[5])
    call('HSET', meta, 'epoch', digits(epoch), 'run', run, 'until', digits(time + lease), 'offset', offset,
               'gen', digits(gen), 'tries', digits(tries), 'tried', offset)
    return {'ok', epoch, offset, now, gen, tries, last, due, numbers, relayed}
end

local function renew(keys, a)
    local lease = integer(a[3])
    if not lease then return refuse('BAD arguments') end
    if not owns(keys[1], a[1], a[2]) then return refuse(FENCED) end -- @mutant no-epoch
    call('HSET', keys[1], 'until', digits(time_ms() + lease))
    return redis.status_reply('OK')
end

local function release(keys, a)
    local first, count, after = section(a, 3, 2)
    if not first or after ~= #a + 1 or not check_relay(a, first, count) or not is_type(keys[2], 'hash') then
        return refuse('BAD relay positions')
    end
    if not owns(keys[1], a[1], a[2]) then return refuse(FENCED) end
    write_relay(keys[2], a, first, count)
    call('HDEL', keys[1], 'run', 'until', 'tries', 'tried')
    return redis.status_reply('OK')
end

local function relay(keys, a)
    local first, count, after = section(a, 3, 2)
    if not first or after ~= #a + 1 or not check_relay(a, first, count) or not is_type(keys[2], 'hash') then
        return refuse('BAD relay positions')
    end
    if not owns(keys[1], a[1], a[2]) then return refuse(FENCED) end
    write_relay(keys[2], a, first, count)
    return redis.status_reply('OK')
end

-- ---- commit ----

-- Where the eight sections lie: of each the index of its first item and the number of items; dead letters, whose items differ in
-- length, as a list of {at, first string, strings}. Nil when a count is missing or the counts do not add up to all arguments.
-- Written out, without tables: this runs for every commit.
local function parse_sections(a)
    local states_count = integer(a[9])
    local history = 11 + 5 * (states_count or 0)
    local history_count = integer(a[history - 1])
    local out = history + 1 + 4 * (history_count or 0)
    local out_count = integer(a[out - 1])
    local numbers = out + 1 + (out_count or 0)
    local numbers_count = integer(a[numbers - 1])
    local timers = numbers + 1 + 2 * (numbers_count or 0)
    local timers_count = integer(a[timers - 1])
    local relays = timers + 1 + 3 * (timers_count or 0)
    local relays_count = integer(a[relays - 1])
    local at = relays + 2 * (relays_count or 0)
    local dead_count = integer(a[at])
    if not (states_count and history_count and out_count and numbers_count and timers_count and relays_count and dead_count)
        or out_count % 2 ~= 0 or out_count > UNPACK_MAX then
        return nil
    end
    local dead
    at = at + 1
    for i = 1, dead_count do
        local first, count, after = pairs_section(a, at + 2)
        if not first then return nil end
        dead = dead or {}
        dead[i], at = {at, first, count}, after
    end
    local pushes_count = integer(a[at])
    if not pushes_count or at + 2 * pushes_count > #a then return nil end
    return 10, states_count, history, history_count, out, out_count, numbers, numbers_count, timers, timers_count,
           relays, relays_count, dead, at + 1, pushes_count
end

-- The type of a key is known once a read of that type has passed: call ends the Function at WRONGTYPE, and nothing is
-- written before the last check. A key that this commit does not write is not looked at.
local function check_states(a, first, count, tag, is_read)
    for i = first, first + 5 * count - 1, 5 do
        local key, op = a[i], a[i + 1]
        if not is_read[key] then
            if not find(key, tag, 1, true) then return 'state ' .. key end
            call('HLEN', key)
        end
        if op == 'd' then
            if a[i + 2] ~= '' then
                if not find(a[i + 2], tag, 1, true) then return 'log of state ' .. key end
                call('LLEN', a[i + 2])
            end
        elseif op ~= 's' or not integer(a[i + 3]) or not integer(a[i + 4]) then
            return 'operation on state ' .. key
        end
    end
    return nil
end

-- Fills number_in: of each log the number of its last entry after this commit; and is_read: states whose type is known.
-- Writing begins with the first log: if that is no list, its RPUSH ends the Function before anything was written.
local function check_history(a, first, count, tag, number_in, is_read)
    local state_of = {}
    for i = first, first + 4 * count - 1, 4 do
        local log, state = a[i], a[i + 1]
        local last = number_in[log]
        if not last then
            if not find(log, tag, 1, true) then return 'log ' .. log end
            if not find(state, tag, 1, true) then return 'state of log ' .. log end
            last = number_of(call('HGET', state, 'n') or '0')
            is_read[state] = true
            state_of[log] = state
            if i > first then call('LLEN', log) end
        elseif state ~= state_of[log] then
            return 'two states of log ' .. log
        end
        last = last + 1
        if integer(a[i + 2]) ~= last then
            return 'number in ' .. log .. ': ' .. digits(last) .. ' is next'
        end
        number_in[log] = last
    end
    return nil
end

local function check_numbers(a, first, count, numbers)
    for i = first, first + 2 * count - 1, 2 do
        local number = integer(a[i + 1])
        if not number or number < number_of(call('HGET', numbers, a[i]) or '0') then
            return 'fact number for ' .. a[i]
        end
    end
    return nil
end

local function check_timers(a, first, count)
    for i = first, first + 3 * count - 1, 3 do
        local op = a[i]
        if op == '+' then
            if not integer(a[i + 2]) or not find(a[i + 1], '^.+|[^|]+|%d+$') then return 'timer ' .. a[i + 1] end
        elseif op ~= '-' then
            return 'timer operation'
        end
    end
    return nil
end

local function write_history(a, first, count, number_in, keep)
    local limit, is_long = keep > 0 and keep + 100, nil
    for i = first, first + 4 * count - 1, 4 do
        local n = call('RPUSH', a[i], a[i + 3])
        if limit and n > limit then
            is_long = is_long or {}
            is_long[a[i]] = true
        end
    end
    if not is_long then return end
    for i = first, first + 4 * count - 1, 4 do
        local log = a[i]
        if is_long[log] then
            is_long[log] = nil
            call('LTRIM', log, digits(-keep), '-1')
            call('HSET', a[i + 1], 'b', digits(number_in[log] - keep))
        end
    end
end

local function write_states(a, first, count)
    for i = first, first + 5 * count - 1, 5 do
        if a[i + 1] == 's' then
            call('HSET', a[i], 's', a[i + 2], 'n', a[i + 3], 'v', a[i + 4])
        else
            call('DEL', a[i])
            if a[i + 2] ~= '' then call('DEL', a[i + 2]) end
        end
    end
end

local function write_timers(a, first, count, timers)
    for i = first, first + 3 * count - 1, 3 do
        if a[i] == '+' then
            call('ZADD', timers, a[i + 2], a[i + 1])
        else
            call('ZREM', timers, a[i + 1])
        end
    end
end

local function write_dead(a, letters, dead)
    for _, d in ipairs(letters or {}) do
        call('XADD', dead, '*', 'e', a[d[1]], 'r', a[d[1] + 1], spread(a, d[2], d[2] + d[3] - 1))
    end
end

-- A ninth section, which may be missing: first number, trim ms, count of facts, facts; for each two more keys. Returns a list of
-- {first, trim ms, index of the first fact, facts}; nil when the counts do not add up.
local function parse_deliveries(keys, a, at)
    local deliveries = {}
    if at == #a + 1 then return deliveries end
    local count = integer(a[at])
    if not count or 7 + 2 * count > #keys then return nil end
    at = at + 1
    for i = 1, count do
        local first, trim_ms, facts = integer(a[at]), integer(a[at + 1]), integer(a[at + 2])
        if not first or first == 0 or not trim_ms or not facts then return nil end
        deliveries[i] = {first, trim_ms, at + 3, facts}
        at = at + 3
        for _ = 1, facts do
            local f, strings, after = pairs_section(a, at)
            if not f or strings == 0 then return nil end
            at = after
        end
    end
    return at == #a + 1 and deliveries or nil
end

local function mark_of(from, k)
    local mark, epoch = match(call('HGET', from, k) or '0 0', '^(%d+) (%d+)$')
    return number_of(mark or 0), number_of(epoch or 0)
end

-- Appends all facts but the first `skip`, moves the mark, trims. Returns the mark.
local function append_facts(destination, from, k, a, at, count, first, skip, trim_ms, mark, epoch)
    for i = 1, count do
        local strings = integer(a[at])
        if i > skip then
            call('XADD', destination, '*', spread(a, at + 1, at + strings))
            mark = first + i - 1
        end
        at = at + 1 + strings
    end
    if skip < count then call('HSET', from, k, digits(mark) .. ' ' .. epoch) end
    if trim_ms > 0 and mark % TRIM_EVERY < count then
        call('XTRIM', destination, 'MINID', digits(max(0, time_ms() - trim_ms)))
    end
    return mark
end

-- Anything but the next number is left to deliver_1, which knows what to do about it.
local function write_deliveries(keys, a, deliveries, out)
    for i, d in ipairs(deliveries) do
        local destination, from, taken = keys[6 + 2 * i], keys[7 + 2 * i], 0
        if d[4] > 0 and is_type(destination, 'stream') and is_type(from, 'hash') and mark_of(from, a[7]) + 1 == d[1] then
            taken = append_facts(destination, from, a[7], a, d[3], d[4], d[1], 0, d[2], d[1] - 1, a[1])
        end
        out[2 + i] = taken
    end
    return out
end

local function commit(keys, a)
    local meta = keys[1]
    local m = call('HMGET', meta, 'epoch', 'run', 'offset', 'now')
    if m[1] ~= a[1] or m[2] ~= a[2] then return refuse(FENCED) end -- @mutant no-epoch
    local offset = m[3] or '0-0'
    if offset ~= a[3] then return refuse('MOVED_OFFSET ' .. offset) end -- @mutant no-offset
    local now, lease, keep = integer(a[5]), integer(a[6]), integer(a[8])
    local is_forward = #a[4] == #a[3] and a[4] >= a[3] -- ids of equal length stand in the order of their letters
    if not now or not lease or not keep or not find(a[4], '^%d+%-%d+$') or not (is_forward or id_less(a[3], a[4])) then
        return refuse('BAD arguments')
    end
    if now < number_of(m[4] or '0') then return refuse('BAD now: it would run back') end
    local states, states_count, history, history_count, out, out_count, numbers, numbers_count, timers, timers_count,
          relays, relays_count, dead, pushes, pushes_count = parse_sections(a)
    local deliveries = states and parse_deliveries(keys, a, pushes + 2 * pushes_count)
    if not deliveries then return refuse('BAD counts') end
    local tag, number_in, is_read = '{' .. a[7] .. '}', {}, {}
    local why = check_history(a, history, history_count, tag, number_in, is_read)
        or check_states(a, states, states_count, tag, is_read)
        or check_numbers(a, numbers, numbers_count, keys[5])
        or check_timers(a, timers, timers_count)
    if why then return refuse('BAD ' .. why) end
    if not check_relay(a, relays, relays_count) then return refuse('BAD relay positions') end
    if out_count > 0 then call('XLEN', keys[3]) end
    if timers_count > 0 then call('ZCARD', keys[4]) end
    if relays_count > 0 then call('HLEN', keys[6]) end
    if dead then call('XLEN', keys[7]) end

    write_history(a, history, history_count, number_in, keep)
    write_states(a, states, states_count)
    local out_id = ''
    if out_count > 0 then
        out_id = call('XADD', keys[3], '*', spread(a, out, out + out_count - 1))
    end
    for i = numbers, numbers + 2 * numbers_count - 1, 2 do
        call('HSET', keys[5], a[i], a[i + 1])
    end
    write_timers(a, timers, timers_count, keys[4])
    write_relay(keys[6], a, relays, relays_count)
    write_dead(a, dead, keys[7])
    if lease > 0 then
        call('HSET', meta, 'offset', a[4], 'now', a[5], 'until', digits(time_ms() + lease))
    else
        call('HSET', meta, 'offset', a[4], 'now', a[5])
    end
    local reply = write_deliveries(keys, a, deliveries, {'ok', out_id})
    for i = pushes, pushes + 2 * pushes_count - 1, 2 do
        call('PUBLISH', a[i], a[i + 1])
    end
    return reply
end

-- ---- deliver: the next number is appended, an earlier one dropped, a gap refused, a fork taken and counted ----

-- How many facts begin at `at`; nil when the counts do not add up.
local function count_facts(a, at)
    local count = integer(a[at])
    if not count then return nil end
    at = at + 1
    for _ = 1, count do
        local first, strings, after = pairs_section(a, at)
        if not first or strings == 0 then return nil end
        at = after
    end
    return at == #a + 1 and count or nil
end

local function deliver(keys, a)
    local destination, from, k = keys[1], keys[2], a[1]
    local epoch, first, trim_ms = integer(a[2]), integer(a[3]), integer(a[4])
    local count = count_facts(a, 5)
    if not k or not epoch or not first or first == 0 or not trim_ms or not count then return refuse('BAD counts') end
    local mark, mark_epoch = mark_of(from, k)
    local skip, is_fork = 0, first <= mark and epoch > mark_epoch and count > 0
    if first > mark + 1 then return refuse('GAP ' .. digits(mark)) end -- @mutant deliver-no-gap
    if not is_fork then skip = min(count, max(0, mark + 1 - first)) end -- @mutant deliver-no-mark
    mark = append_facts(destination, from, k, a, 6, count, first, skip, trim_ms, mark, digits(epoch))
    if is_fork then call('HINCRBY', from, 'forks', 1) end
    return mark
end

-- ---- tick: due timers become events; they leave timers:{k} only in the commit that processes them ----

local function tick(keys, a)
    local now, limit = integer(a[3]), integer(a[4])
    if not now or not limit then return refuse('BAD arguments') end
    if not owns(keys[1], a[1], a[2]) then return refuse(FENCED) end
    if not is_type(keys[2], 'stream') or not is_type(keys[3], 'zset') then return refuse('BAD type of ' .. keys[2]) end
    local due = call('ZRANGEBYSCORE', keys[3], '-inf', digits(now), 'LIMIT', 0, min(limit, TICK_MAX))
    local appended = 0
    for _, member in ipairs(due) do
        local object, name, gen = match(member, '^(.+)|([^|]+)|(%d+)$')
        if not object then
            call('ZREM', keys[3], member) -- commit lets no such member in
        else
            if number_of(gen) == 0 then
                call('XADD', keys[2], '*', 't', 'timer', 'c', object, 'nm', name)
            else
                call('XADD', keys[2], '*', 't', 'timer', 'c', object, 'nm', name, 'gen', gen)
            end
            call('ZADD', keys[3], IN_LOG, member)
            appended = appended + 1
        end
    end
    return {appended, next_due(keys[3])}
end

-- ---- trim: entries that nobody waits for any more ----

-- The position up to which every reader of `log_name` is done, not beyond `done`. A reader of class may holds a log only up
-- to MAY_HOLD_MAX entries; then its registration says "lapsed" and it goes on from the archive.
local function done_by_all(tails, log_name, log, done)
    local registered, may = call('HGETALL', tails), {}
    for i = 1, #registered, 2 do
        if string.sub(registered[i], 1, #log_name + 1) == log_name .. ':' then
            local class, id = match(registered[i + 1], '^(%a+) (%d+%-%d+)$')
            id = id_parts(id) and id or '0-0'
            if class == 'may' then
                may[#may + 1] = {registered[i], id}
            elseif class ~= 'lapsed' and id_less(id, done) then
                done = id
            end
        end
    end
    local is_long = call('XLEN', log) > MAY_HOLD_MAX
    local held = done
    for _, r in ipairs(may) do
        if id_less(r[2], done) then
            if is_long then
                call('HSET', tails, r[1], 'lapsed ' .. r[2])
            elseif id_less(r[2], held) then
                held = r[2]
            end
        end
    end
    return held
end

local function trim(keys, a)
    if not id_parts(a[3]) then return refuse('BAD entry id') end
    if not owns(keys[1], a[1], a[2]) then return refuse(FENCED) end
    for i, wanted in ipairs({'hash', 'stream', 'stream', 'hash', 'hash'}) do
        if not is_type(keys[i], wanted) then return refuse('BAD type of ' .. keys[i]) end
    end
    local offset = call('HGET', keys[1], 'offset') or '0-0'
    local relayed = call('HGET', keys[5], '@') or '0-0'
    if id_less(a[3], relayed) then relayed = a[3] end
    call('XTRIM', keys[2], 'MINID', id_after(done_by_all(keys[4], 'in', keys[2], offset)))
    call('XTRIM', keys[3], 'MINID', id_after(done_by_all(keys[4], 'out', keys[3], relayed)))
    return {call('XLEN', keys[2]), call('XLEN', keys[3])}
end

-- ---- for workers and operators ----

local function answer(keys, a)
    local first, count, after = pairs_section(a, 1)
    if not first or count == 0 or after ~= #a + 1 then return refuse('BAD counts') end
    local bytes = 0
    for i = first, after - 1 do
        bytes = bytes + #a[i]
        if #a[i] > FIELD_BYTES_MAX then return refuse('TOOBIG one value') end
    end
    if bytes > ANSWER_BYTES_MAX or count > ANSWER_STRINGS_MAX then return refuse('TOOBIG all values') end
    local length = call('XLEN', keys[1])
    if length >= ANSWER_LOG_MAX then return refuse('FULL ' .. digits(length)) end
    return call('XADD', keys[1], '*', spread(a, first, after - 1))
end

-- A dead letter is e = entry id, r = reason, then the event: the event goes back to the end of the command log.
local function redrive(keys, a)
    if not id_parts(a[1]) then return refuse('BAD entry id') end
    local found = call('XRANGE', keys[1], a[1], a[1])[1]
    if not found or #found[2] < 6 or not is_type(keys[2], 'stream') then return refuse('NONE no such dead letter') end
    local entry = call('XADD', keys[2], '*', spread(found[2], 5))
    call('XDEL', keys[1], a[1])
    return entry
end

-- ---- box: what an inbox's adapters in all processes share: a value or a map that may end by itself ----

local BOX_BYTES_MAX = 65536
local BOX_FIELDS_MAX = 1000
local BOX_ARGUMENTS = {get = 2, set = 3, add = 3, swap = 4, drop = 3, put = 4}

-- u is the end in Redis time: Redis ends the key by itself, and the store in memory looks at u alone.
local function box_keep_until(key, ttl)
    if ttl == 0 then
        call('HDEL', key, 'u')
        call('PERSIST', key)
    else
        local ends = digits(time_ms() + ttl)
        call('HSET', key, 'u', ends)
        call('PEXPIREAT', key, ends)
    end
end

local function box_map(key)
    local all, out = call('HGETALL', key), {'ok'}
    for i = 1, #all, 2 do
        if string.sub(all[i], 1, 1) == 'f' then
            out[#out + 1] = string.sub(all[i], 2)
            out[#out + 1] = all[i + 1]
        end
    end
    return out
end

local function box(keys, a)
    local key, op, ttl = keys[1], a[1], integer(a[2])
    if not key or not ttl or #a ~= BOX_ARGUMENTS[op] then return refuse('BAD arguments of box_1') end
    for i = 3, #a do
        if #a[i] > BOX_BYTES_MAX then return refuse('TOOBIG a value of a box') end
    end
    if not is_type(key, 'hash') then return refuse('BAD type of ' .. key) end
    local held = call('HMGET', key, 'v', 'u')
    local is_over = held[2] and number_of(held[2]) <= time_ms()
    local present = not is_over and held[1]
    if op == 'get' then
        return present and {'ok', present} or {'none'}
    end
    if op == 'put' and not is_over and call('HLEN', key) >= BOX_FIELDS_MAX and call('HEXISTS', key, 'f' .. a[3]) == 0 then
        return refuse('TOOBIG a map of a box')
    end
    if (op == 'add' and present) or (op == 'swap' and (present or '') ~= a[4]) then
        return {'conflict', present or ''}
    end
    if op == 'drop' and present and a[3] ~= '' and present ~= a[3] then
        return {'ok', present}
    end
    if is_over or op == 'drop' then call('DEL', key) end
    if op == 'drop' then return {'ok', ''} end
    if op == 'put' then
        call('HSET', key, 'f' .. a[3], a[4])
    else
        call('HSET', key, 'v', a[3])
    end
    box_keep_until(key, ttl)
    return op == 'put' and box_map(key) or {'ok', ''}
end

local at_maxmemory = {'allow-oom'}
redis.register_function{function_name = 'accept_1', callback = with_locals(accept)}
redis.register_function{function_name = 'acquire_1', callback = with_locals(acquire), flags = at_maxmemory}
redis.register_function{function_name = 'renew_1', callback = with_locals(renew), flags = at_maxmemory}
redis.register_function{function_name = 'release_1', callback = with_locals(release), flags = at_maxmemory}
redis.register_function{function_name = 'commit_1', callback = with_locals(commit), flags = at_maxmemory}
redis.register_function{function_name = 'deliver_1', callback = with_locals(deliver), flags = at_maxmemory}
redis.register_function{function_name = 'tick_1', callback = with_locals(tick), flags = at_maxmemory}
redis.register_function{function_name = 'relay_1', callback = with_locals(relay), flags = at_maxmemory}
redis.register_function{function_name = 'trim_1', callback = with_locals(trim), flags = at_maxmemory}
redis.register_function{function_name = 'answer_1', callback = with_locals(answer)}
redis.register_function{function_name = 'redrive_1', callback = with_locals(redrive)}
redis.register_function{function_name = 'box_1', callback = with_locals(box), flags = at_maxmemory}
