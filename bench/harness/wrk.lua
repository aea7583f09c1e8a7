-- wrk -s wrk.lua URL -- FILE : sends the requests of a file in turn, each a line: method, path and body with a tab between.
local requests, at = {}, 0
local json = { ["content-type"] = "application/json" }
function init(args)
  for line in io.lines(args[1]) do
    local method, path, body = line:match("^(%u+)\t([^\t]+)\t?(.*)$")
    if body == "" then
      requests[#requests + 1] = wrk.format(method, path)
    else
      requests[#requests + 1] = wrk.format(method, path, json, body)
    end
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
