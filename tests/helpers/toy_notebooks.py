"""Small notebooks for tests of the tooling: a title, a parameters cell and a body."""

import nbformat


def write(path, title, parameters, body, tags=("parameters",)):
    """Write a notebook and return its path."""
    v4 = nbformat.v4
    cells = [
        v4.new_markdown_cell(f"# {title}\n\nIn line $x^2$.", id="title"),
        v4.new_code_cell(parameters, id="values", metadata={"tags": list(tags)}),
        v4.new_code_cell(body, id="body"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path
