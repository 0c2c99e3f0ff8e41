-- For wrk: webhooks of Kratos, each a recorded body and a trigger id of its own.
-- Arguments: path, API key, a file with a body in each line. Ends with one line of JSON.

local threads = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(args)
  heads, tails, sent = {}, {}, 0
  for body in io.lines(args[3]) do
    local head = "POST " .. args[1] .. " HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Api-Key: " .. args[2]
      .. "\r\nContent-Type: application/json\r\nContent-Length: " .. #body
      .. "\r\nOry-Webhook-Trigger-Id: "
    table.insert(heads, head)
    table.insert(tails, "\r\n\r\n" .. body)
  end
  math.randomseed(os.time() + number)
  run = string.format("%08x-%04x-4000-8000-%04x", os.time(), math.random(0, 65535), number)
end

function request()
  sent = sent + 1
  local which = sent % #heads + 1
  return heads[which] .. run .. string.format("%08x", sent) .. tails[which]
end

function done(summary, latency)
  local failed = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.3f, "refused": %d, "broken": %d, "p50_ms": %.3f, "p99_ms": %.3f}\n',
    summary.requests, summary.duration / 1e6, failed.status,
    failed.connect + failed.read + failed.write + failed.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
