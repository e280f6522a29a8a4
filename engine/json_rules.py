"""JSON as rules in GBNF: what a schema's rules are put together from, and any object at all.

Pure. Source: RFC 8259. Rule: engine/README.md.
"""

# White space as llama.cpp's: it can't go on for ever, which small models like to. Escapes are
# never halves of surrogate pairs, so that a string's length is what a schema means by it.
JSON_RULES = r"""
ws ::= | " " | "\n" [ \t]{0,20}
hex ::= [0-9a-fA-F]
escaped ::= ["\\/bfnrt] | "u" ([0-9abcefABCEF] hex{3} | [dD] [0-7] hex{2})
char ::= [^"\\\x00-\x1F\x7F] | "\\" escaped
string ::= "\"" char* "\""
integer ::= "-"? [1-9] [0-9]{0,15} | "0"
number ::= "-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,3})?
boolean ::= "true" | "false"
null ::= "null"
object ::= "{" ws (string ws ":" ws value ws ("," ws string ws ":" ws value ws)*)? "}"
array ::= "[" ws (value ws ("," ws value ws)*)? "]"
value ::= object | array | string | number | boolean | null
"""
JSON_OBJECT = "root ::= object\n" + JSON_RULES
