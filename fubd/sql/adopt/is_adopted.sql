-- Whether the product table was taken over from older scripts.
SELECT EXISTS (SELECT FROM fubd.adoption) AS is_adopted
