"""A model behind the HTTP interface of OpenAI (https://platform.openai.com/docs/api-reference), on one engine.

`requests` and `texts` read what is asked, `model` or `encoder` answers it in the one thread of `worker`, `replies` and
`texts` say it, `app` is the web application and `server` its life. An error is an `ApiError`, told in OpenAI's shape.
"""
