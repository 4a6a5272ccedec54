from fastapi import APIRouter, HTTPException
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from app.database import Session
from app.models import Book, Review
from app.schemas import ReviewIn, ReviewOut

router = APIRouter(prefix="/books/{book_id}/reviews")


@router.post("", status_code=201)
async def review_book(book_id: int, body: ReviewIn, session: Session) -> ReviewOut:
    try:
        async with session.begin():
            book = await session.get(Book, book_id)
            if book is None:
                raise HTTPException(404, "no such book")
            review = await session.scalar(insert(Review).values(book_id=book_id, **body.model_dump()).returning(Review))
            counted = select(Book.rating_count, Book.rating_sum).where(Book.id == book_id)
            count, total = (await session.execute(counted)).one()
            created = ReviewOut(
                id=review.id,
                book_id=book_id,
                rating_count=count,
                rating_average=total / count,
                **body.model_dump(),
            )
    except IntegrityError as error:
        raise HTTPException(409, "the customer is unknown") from error
    return created
