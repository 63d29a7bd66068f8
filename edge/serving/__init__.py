"""A model behind the HTTP interface of OpenAI (https://platform.openai.com/docs/api-reference), on one engine.

`requests` reads what is asked, `model` answers it in the one thread of `worker`, `replies` says it, `app` is the web
application and `server` its life. An error is an `ApiError`, told in OpenAI's shape.
"""
