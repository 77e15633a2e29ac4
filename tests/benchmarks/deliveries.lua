-- Sends prepared requests, one after another: each line of the file named by DELIVERIES is a signature and a body.
local next_line = 0
local bodies, signatures = {}, {}

function init(_)
    for line in io.lines(os.getenv("DELIVERIES")) do
        local signature, body = line:match("^(%S+) (.*)$")
        signatures[#signatures + 1] = signature
        bodies[#bodies + 1] = body
    end
end

function request()
    next_line = next_line % #bodies + 1
    return wrk.format("POST", "/webhook/fub", {
        ["Host"] = "127.0.0.1",
        ["Content-Type"] = "application/json",
        ["FUB-Signature"] = signatures[next_line],
    }, bodies[next_line])
end

function done(summary, latency, _)
    io.write(string.format("RESULT %d %d %d %d %d\n", summary.requests, summary.duration, summary.errors.status,
        summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout, latency:percentile(99)))
end
