from fastapi import APIRouter, HTTPException

from app.database import Session
from app.models import Book, Review
from app.schemas import Id, ReviewIn, ReviewOut

router = APIRouter(prefix="/books/{book_id}/reviews")


@router.post("", status_code=201)
async def review_book(book_id: Id, body: ReviewIn, session: Session) -> ReviewOut:
    async with session.begin():
        book = await session.get(Book, book_id)
        if book is None:
            raise HTTPException(404, "no such book")
        review = Review(book_id=book_id, **body.model_dump())
        session.add(review)
        await session.flush()
        await session.refresh(book)  # a trigger has counted the review
        return ReviewOut(
            id=review.id,
            book_id=book_id,
            rating_count=book.rating_count,
            rating_average=book.rating_sum / book.rating_count,
            **body.model_dump(),
        )
