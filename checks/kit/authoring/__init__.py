"""For the authors of lessons: does every lesson keep its promises, and what does the kit cost?"""
