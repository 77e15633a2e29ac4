-- Drop the copy that the adoption made. Without CASCADE: what others have built on it is theirs, and then the copy stays.
DROP TABLE IF EXISTS {relation}
