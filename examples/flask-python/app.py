"""An ordinary Flask application."""

from flask import Flask, jsonify, render_template_string, request

app = Flask(__name__)

PAGE = """\
<title>{{ title }}</title>
<h1>{{ title }}</h1>
<ul>
{%- for line in lines %}
  <li>{{ line }}</li>
{%- endfor %}
</ul>
"""


@app.get("/")
def page():
    lines = request.args.getlist("line") or ["nothing yet"]
    return render_template_string(PAGE, title="Lines", lines=lines)


@app.post("/sum")
def add():
    numbers = request.get_json()["numbers"]
    return jsonify(sum=sum(numbers), count=len(numbers))


@app.errorhandler(404)
def not_found(_error):
    return jsonify(error=f"nothing at {request.path}"), 404
