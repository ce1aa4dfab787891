"""Teaches schemathesis to read JSON lines, so that each line is held against the document."""

import json

import schemathesis


@schemathesis.deserializer("application/x-ndjson")
def lines(_, response):
    return [json.loads(line) for line in response.text.splitlines()]
