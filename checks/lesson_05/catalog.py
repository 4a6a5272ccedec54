"""What a database holds besides rows, in words: a line for each thing, so that two databases can be compared."""

from __future__ import annotations

from itertools import zip_longest

LINES = """
WITH relation AS (
    SELECT c.oid, c.relname, c.relkind, c.relpersistence, c.relrowsecurity FROM pg_class c
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND c.relname <> 'alembic_version'
)
SELECT 'table', relname, concat_ws(' ', relname, relkind, relpersistence, relrowsecurity) FROM relation
UNION ALL
SELECT 'column', concat_ws('.', relname, attname), concat_ws(
    ' ', relname || '.' || attname, format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN 'NOT NULL' END,
    'DEFAULT ' || pg_get_expr(adbin, adrelid), 'IDENTITY ' || nullif(attidentity::text, ''),
    'GENERATED ' || nullif(attgenerated::text, '')
) FROM relation JOIN pg_attribute ON attrelid = relation.oid
       LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
 WHERE attnum > 0 AND NOT attisdropped
UNION ALL
SELECT 'constraint', conname, concat_ws(' ', relname, conname, pg_get_constraintdef(c.oid))
  FROM relation JOIN pg_constraint c ON conrelid = relation.oid
 WHERE contype <> 'n'  -- NOT NULL, which the columns tell
UNION ALL
SELECT 'index', i.relname, concat_ws(' ', pg_get_indexdef(indexrelid), CASE WHEN NOT indisvalid THEN 'INVALID' END)
  FROM relation JOIN pg_index ON indrelid = relation.oid JOIN pg_class i ON i.oid = indexrelid
UNION ALL
SELECT 'trigger', tgname, concat_ws(' ', pg_get_triggerdef(t.oid), CASE WHEN tgenabled <> 'O' THEN 'SWITCHED OFF' END)
  FROM relation JOIN pg_trigger t ON tgrelid = relation.oid WHERE NOT tgisinternal
UNION ALL
SELECT 'function', proname, CASE WHEN prokind = 'a' THEN proname ELSE pg_get_functiondef(oid) END
  FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT 'type', typname, concat_ws(' ', typname, 'with', (
    SELECT string_agg(enumlabel, ', ' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid
)) FROM pg_type t LEFT JOIN pg_class c ON c.oid = typrelid
 WHERE typnamespace = 'public'::regnamespace AND typelem = 0 AND (typrelid = 0 OR c.relkind = 'c')
UNION ALL
SELECT 'sequence', relname, concat_ws(' ', relname, seqtypid::regtype, seqstart, seqincrement, seqmin, seqmax, seqcycle)
  FROM pg_sequence JOIN pg_class c ON c.oid = seqrelid WHERE relnamespace = 'public'::regnamespace
UNION ALL
SELECT 'comment', relname, concat_ws(' ', relname, objsubid, description)
  FROM relation JOIN pg_description ON objoid = relation.oid AND classoid = 'pg_class'::regclass
UNION ALL
SELECT 'policy', polname, polname FROM pg_policy
UNION ALL
SELECT 'schema', nspname, nspname FROM pg_namespace
 WHERE nspname NOT IN ('public', 'information_schema') AND nspname NOT LIKE 'pg\\_%'
UNION ALL
SELECT 'extension', extname, extname FROM pg_extension
"""
"""Rows of a kind, a name, and words that differ if the thing does."""


async def catalog(shop):
    """{(kind, name): words} of everything that is not a row; Alembic's own table is left out.

    Neither the order of columns nor the name of a NOT NULL counts: no statement of the app depends on them.
    """
    return {
        (row["kind"], f"{row['name']}{'' if row['nth'] == 1 else row['nth']}"): " ".join(row["words"].split())
        for row in await shop.rows(
            "SELECT kind, name, words, row_number() OVER (PARTITION BY kind, name ORDER BY words) AS nth "
            f"FROM ({LINES}) AS line (kind, name, words)"
        )
    }


def differences(before, after, places=None):
    """What differs between two catalogs, a line for each thing; empty if nothing does.

    `before` and `after` are one database at two times. Where they are two databases, `places` says where each one is:
    `("in production", "in a new database")`.
    """
    lines = []
    for kind, name in sorted(before.keys() | after.keys()):
        old, new = before.get((kind, name)), after.get((kind, name))
        if old is None:
            lines.append(f"{kind} {name}: {f'only {places[1]}' if places else 'left over'} ({_short(new)})")
        elif new is None:
            lines.append(f"{kind} {name}: missing{f' {places[1]}' if places else ''}")
        elif old != new:
            was, now = places or ("was", "is")
            same = next(n for n, (a, b) in enumerate(zip_longest(old, new)) if a != b)
            lines.append(f"{kind} {name}: {was} `{_short(old, same)}`, {now} `{_short(new, same)}`")
    return lines


def _short(words, same=0):
    """At most some 160 characters; of two texts that begin alike for long, the place where they differ."""
    start = same - 40 if same > 120 else 0
    begins = "… " if start else ""
    return begins + (words[start:] if len(words) - start <= 160 else f"{words[start : start + 160]} …")
