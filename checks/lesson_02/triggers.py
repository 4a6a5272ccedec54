"""Triggers of the checks' own: what an app imitates in Python is what somebody read in schema.sql."""

CHANGES_BOOKS = """
CREATE FUNCTION mark_book() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.isbn := rtrim(NEW.isbn, '#') || '#';
    NEW.revision := NEW.revision + 10;
    RETURN NEW;
END $$;
CREATE TRIGGER zz_mark_book BEFORE INSERT OR UPDATE ON books FOR EACH ROW EXECUTE FUNCTION mark_book();
"""
REVISIONS = 11
"""By how much the revision of a book rises with each change: 1 by the trigger of schema.sql, 10 by this one."""

CHANGES_REVIEWS = """
CREATE FUNCTION mark_review() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.rating := greatest(NEW.rating, 2);
    RETURN NEW;
END $$;
CREATE TRIGGER zz_mark_review BEFORE INSERT ON reviews FOR EACH ROW EXECUTE FUNCTION mark_review();
"""

# What it writes is there once the INSERT is committed, and it stays when the book is deleted again.
NOTES_COMMITTED_BOOKS = """
CREATE TABLE committed_books (id bigint, title text);
CREATE FUNCTION note_book() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO public.committed_books VALUES (NEW.id, NEW.title);
    RETURN NULL;
END $$;
CREATE TRIGGER zz_note_book AFTER INSERT ON books FOR EACH ROW EXECUTE FUNCTION note_book();
"""


async def change_books(shop):
    """From now on PostgreSQL ends an ISBN with `#` and counts ten revisions more."""
    await shop.execute(CHANGES_BOOKS, step="a trigger is added: an ISBN ends with #, each change is 10 revisions more")


async def change_reviews(shop):
    """From now on PostgreSQL stores a rating of 1 as 2."""
    await shop.execute(CHANGES_REVIEWS, step="a trigger is added: a rating of 1 is stored as 2")


async def note_committed_books(shop):
    """From now on the table `committed_books` has each book whose INSERT was committed."""
    await shop.execute(NOTES_COMMITTED_BOOKS)


# The aim: the last rows of a long list lie in front of its first ones. VACUUM finds free space in page 1 and in the
# last page. The long row goes to page 1, so PostgreSQL begins its next search for space after it: the rows of the list
# go to the last page, and when that is full, to page 1.
SCATTERS = (
    "INSERT INTO books (isbn, title, author_id, price_cents) "
    "SELECT 'scattered' || n, repeat('z', 90), $1, 1 FROM generate_series(1, 300) n",
    "DELETE FROM books WHERE (ctid::text::point)[0] IN (1, (SELECT max((ctid::text::point)[0]) FROM books))",
    "VACUUM (DISABLE_PAGE_SKIPPING, TRUNCATE FALSE) books",
    "INSERT INTO books (isbn, title, author_id, price_cents) "
    "SELECT 'scattered', string_agg(md5(n::text), ''), $1, 1 FROM generate_series(1, 55) n",
)


async def scatter_books(shop, author):
    """From now on PostgreSQL stores the end of a long list in front of its beginning."""
    fill, delete, vacuum, skip = SCATTERS
    await shop.execute(fill, author)
    await shop.execute(
        delete, step="300 books are added, and some deleted: there is free space in front of the last rows"
    )
    await shop.execute(vacuum)
    await shop.execute(skip, author)
