# What a change is checked with; CONTRIBUTING.md says when.
.PHONY: format check test docs site

format:  ## sort imports and repair what can be repaired
	ruff check --fix .

check:  ## style and types
	ruff check .
	mypy

test:  ## the whole suite, in two processes
	pytest -n 2

docs:  ## pages that are written from the code
	python docs/make_flags.py

site:  ## the site of docs/ (extra docs); a dead link fails it
	mkdocs build --strict
